#!/bin/bash
# podman as root, containers in a user namespace (`--uidmap`), with `mount_program`.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
# containers/storage before 1.44 gives layers mapped by the kernel and asks to map them again; later ones only ask.
[ -z "${LAMINA_PLAIN_LOWERS:-}" ] || { mkdir -p "$store/run/overlay" && touch "$store/run/overlay/idmapped-lower-dir-false"; }
engine() { podman "$@" </dev/null; }
map="--uidmap 0:200000:65536 --gidmap 0:200000:65536"
base_image
engine build -q --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail userns::build "$(tail -n 3 "$scratch/build.log")"
# shellcheck disable=SC2086
{
    equal userns::mapped "$(engine run --rm $map lamina/app sh -c 'cat /proc/self/uid_map; stat -c %u:%g /etc/passwd /kept' | tr -s ' \n' ' ')" " 0 200000 65536 0:0 7:8 "
    judge userns::image "$(engine run --rm $map lamina/app sh -c "$judge_image" 2>&1)"
    use_containers userns $map
    engine run --name owner $map lamina/app sh -c 'touch /mine; chown 5:6 /mine' >/dev/null 2>&1
    equal userns::upper_owner "$(find "$store/graph/overlay" -path '*/diff/mine' -exec stat -c %u:%g {} +)" 5:6
}
no_rest userns
[ "$failed" = 0 ]
