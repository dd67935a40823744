/* Part of scripts/xfstests: lets a FUSE program that ignores -o fsname= show $FSNAME as its source. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
    int (*next)(const char *, const char *, const char *, unsigned long, const void *) =
        dlsym(RTLD_NEXT, "mount");
    const char *name = getenv("FSNAME");

    if (name && type && !strncmp(type, "fuse", 4))
        source = name;
    return next(source, target, type, flags, data);
}
