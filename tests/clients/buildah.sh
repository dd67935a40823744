#!/bin/bash
# buildah as root with `mount_program`: build from a Dockerfile, and from, run, copy, mount, config, commit by hand.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
export BUILDAH_ISOLATION=chroot
engine() { podman "$@" </dev/null; }
bud() { buildah "$@" </dev/null; }
base_image
bud build --layers -q --network host -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail buildah::build "$(tail -n 3 "$scratch/build.log")"
bud from --name work lamina/app >/dev/null
judge buildah::image "$(bud run work sh -c "$judge_image" 2>&1)"

bud run work sh -c 'rm -rf /renamed && mkdir /renamed && echo again >/renamed/only; mv /links /joined'
mnt=$(bud mount work)
equal buildah::mount "$(ls "$mnt/renamed") $(stat -f -c %t "$mnt")" "only 65735546"
echo outside >"$mnt/renamed/outside"
bud umount work >/dev/null
echo copied >"$scratch/copied"
bud copy -q work "$scratch/copied" /seed/ >/dev/null
mkdir -p "$scratch/over"
echo host >"$scratch/over/file"
equal buildah::overlay_volume "$(bud run -v "$scratch/over:/over:O" work sh -c 'echo in >>/over/file; cat /over/file' | tr '\n' ' ')" "host in "
equal buildah::overlay_volume_host "$(cat "$scratch/over/file")" host
bud commit -q work lamina/second >"$scratch/commit.log" 2>&1 || fail buildah::commit "$(cat "$scratch/commit.log")"
bud rm work >/dev/null
bud from --name again lamina/second >/dev/null
equal buildah::committed "$(bud run again sh -c 'ls -x /renamed; cat /seed/copied; stat -c %h /joined/a; ls -d /links' 2>/dev/null | tr '\n' ' ')" \
    "only  outside copied 3 "
bud rm -a >/dev/null
no_rest buildah
[ "$failed" = 0 ]
