#!/bin/bash
# An image that podman pushed to a real registry, pulled by us, against what podman itself mounts. What is there is not
# fetched again; passwords; a pull that is killed and goes on; damage; digests and indexes; TLS and proxies.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
. "$repo/scripts/clients.d/registry.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
base_image
engine build -q --layers --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail pull::build "$(tail -n 3 "$scratch/build.log")"
tree() { "$repo/scripts/clients.d/tree-hash" "$1" --list | sort | grep -vF "[b'.', "; }
tree "$(engine image mount lamina/app)" >"$scratch/expected"
engine image umount lamina/app >/dev/null
root=$scratch/root mnt=$scratch/mnt out=$scratch/out
mkdir "$mnt"
run() { "$lamina" image --root "$root" "$@" </dev/null; }
refused() { # NAME PATTERN ARGUMENT...
    if run pull "${@:3}" >"$out" 2>&1; then fail "$1" "accepted"; else equal "$1" "$? $(grep -cE "$2" "$out")" "1 1"; fi
}

registry
engine push -q --tls-verify=false lamina/app "$host/x/app:1" >"$scratch/push.log" 2>&1 || fail pull::push "$(tail -n 1 "$scratch/push.log")"
run pull "$host/x/app:1" >"$out" 2>&1 || fail pull::pull "$(tail -n 1 "$out")"
equal pull::id "$(cat "$out")" "$(engine image inspect --format '{{.Id}}' lamina/app)"
"$lamina" mount --root "$root" --image "$host/x/app:1" "$mnt" || fail pull::mount "rc $?"
equal pull::tree "$(diff "$scratch/expected" <(tree "$mnt") | head -n 5)" ""
"$lamina" umount "$mnt"
equal pull::spool_is_removed "$(find "$root/downloads" -type f | wc -l)" 0
before=$(log_lines)
equal pull::again "$(run --json pull "$host/x/app:1" -t again | grep -c '"kept"')" 9
equal pull::again_sends_no_layer "$(sent "$before" | cut -d' ' -f2)" 1
refused pull::unknown 'x/none:1: the registry answered 404.*(NAME|MANIFEST)_UNKNOWN' "$host/x/none:1"
digest=$(curl -sI -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$host/v2/x/app/manifests/1" | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p')
equal pull::digest "$(run pull "$host/x/app@$digest" 2>&1)" "$(engine image inspect --format "{{.Id}}" lamina/app)"
engine manifest create lamina/list >/dev/null
engine manifest add --tls-verify=false lamina/list "docker://$host/x/app:1" >/dev/null
engine manifest push -q --tls-verify=false lamina/list "docker://$host/x/app:list" >"$scratch/push.log" 2>&1 || fail pull::push_index "$(tail -n 1 "$scratch/push.log")"
equal pull::index "$(run pull "$host/x/app:list" 2>&1)" "$(engine image inspect --format '{{.Id}}' lamina/app)"
. "$repo/scripts/clients.d/pull-faults.sh"
. "$repo/scripts/clients.d/pull-tls.sh"
no_rest pull
[ "$failed" = 0 ]
