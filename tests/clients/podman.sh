#!/bin/bash
# podman as root with `mount_program`: build, run, diff, commit, cp, a named volume, :O.
# Part of scripts/clients, which gives it an isolated place; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
base_image
engine build -q --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail podman::build "$(tail -n 3 "$scratch/build.log")"
judge podman::image "$(engine run --rm lamina/app sh -c "$judge_image" 2>&1)"
use_containers podman
use_overlay_volume podman 0:0
no_rest podman
[ "$failed" = 0 ]
