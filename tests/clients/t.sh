#!/bin/bash
# podman as root with `mount_program`: build, run, diff, commit, cp, a named volume, :O.
# Part of scripts/clients, which gives it an isolated place; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
mkdir -p $scratch/bb/bin; cp /bin/busybox $scratch/bb/bin/; ln -s busybox $scratch/bb/bin/sh
tar -C $scratch/bb -cf $scratch/b.tar .; engine import $scratch/b.tar lamina/app >/dev/null 2>&1
strace -f -o /tmp/st.log podman run --rm lamina/app sh -c "echo hi" </dev/null & sleep 4; 
