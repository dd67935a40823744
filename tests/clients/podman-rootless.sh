#!/bin/bash
# podman of a plain user, with `mount_program`: build, run, diff, commit, cp, a named volume, :O, --userns keep-id.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
own_users lamina-test
rootless_host
cp "$lamina" "$scratch/$program"
container_store "$scratch/$program" crun disabled
chown -R lamina-test: "$store"
engine() { as_user lamina-test podman "$@" </dev/null; }
rootless_judge rootless
no_rest rootless
[ "$failed" = 0 ]
