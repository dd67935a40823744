#!/bin/bash
# podman of a plain user without any configuration, with our program on PATH under the name fuse-overlayfs.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
own_users lamina-test
rootless_host
mkdir "$scratch/bin"
cp "$lamina" "$scratch/bin/fuse-overlayfs"
program=fuse-overlayfs user_path=$scratch/bin:$PATH
engine_config crun disabled >"$scratch/containers.conf" # no store, no program: only what this host needs
export CONTAINERS_CONF=$scratch/containers.conf
engine() { as_user lamina-test podman "$@" </dev/null; }
# A store that a mount program has served before; with a new one containers/storage prefers the kernel's overlayfs.
overlay=$scratch/home/lamina-test/.local/share/containers/storage/overlay
as_user lamina-test mkdir -p "$overlay"
printf true >"$overlay/.has-mount-program"
chown lamina-test: "$overlay/.has-mount-program"
export STORAGE_DRIVER=overlay # podman 4.3 takes vfs without a storage.conf
rootless_judge named
no_rest named
[ "$failed" = 0 ]
