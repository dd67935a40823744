#!/bin/bash
# Part of scripts/xfstests: makes the two XFS images, the helpers that mount(8) calls, and the configuration.
# Takes scratch, suite, mode, lamina and fuse_overlayfs from the environment; leaves all below $scratch.
. "$(dirname "$0")/../lib.sh"

image() { # NAME SIZE
    truncate -s "$2" "$scratch/$1.img"
    mkfs.xfs -q -f "$scratch/$1.img"
}
image test-image 8G
image scratch-image 12G
config=$scratch/config
echo "export TEST_DIR=$scratch/test SCRATCH_MNT=$scratch/scratch" >"$config"

case $mode in plain | overlay*)
    echo "export FSTYP=xfs TEST_DEV=$(losetup -f --show "$scratch/test-image.img")" >>"$config"
    echo "export SCRATCH_DEV=$(losetup -f --show "$scratch/scratch-image.img")" >>"$config"
    [ "$mode" != overlay ] || own_helper mount.fuse.lamina
    exit ;;
esac
# Layers of the two mounts, and the options that name them.
options() { # NAME
    local base=$scratch/layers-$1
    mkdir -p "$base"
    mount -o loop "$scratch/$1-image.img" "$base"
    mkdir -p "$base"/{lower,upper,work}
    echo "-o lowerdir=$base/lower,upperdir=$base/upper,workdir=$base/work"
}
mkdir -p "$scratch/bin" "$scratch/sbin"
case $mode in
    ours)
        name=lamina
        ;;
    fuse-overlayfs)
        name=fuse-overlayfs
        cc -shared -fPIC -o "$scratch/fsname.so" "$(dirname "$0")/fsname.c"
        sed -e "s|@preload@|$scratch/fsname.so|" -e "s|@program@|$fuse_overlayfs|" \
            "$(dirname "$0")/mount.fuse.fuse-overlayfs" >"$scratch/sbin/mount.fuse.fuse-overlayfs"
        chmod +x "$scratch/sbin/mount.fuse.fuse-overlayfs"
        ;;
esac
own_helper "mount.fuse.$name"
cat >>"$config" <<END
export FSTYP=fuse FUSE_SUBTYP=.$name TEST_DEV=$name-test SCRATCH_DEV=$name-scratch
export TEST_FS_MOUNT_OPTS="$(options test)"
export MOUNT_OPTIONS="$(options scratch)"
END
# The suite wants the type to read `fuse`, without the subtype.
printf '#!/bin/bash\nset -o pipefail\n/bin/df "$@" | sed "s/ fuse\\.%s / fuse /"\n' "$name" >"$scratch/bin/df"
chmod +x "$scratch/bin/df"
