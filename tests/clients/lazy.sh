#!/bin/bash
# Images to a real registry: as tars, which podman and skopeo pull, and in our own form, of which a mount fetches what is
# read. The registry goes away, sends something else, comes back; a daemon is killed; all of it comes in the end.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
. "$repo/scripts/clients.d/registry.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
real_image || fail lazy::build "$(tail -n 3 "$scratch/build.log")"
tree() { "$repo/scripts/clients.d/tree-hash" "$1" --list | sort | grep -vF "[b'.', "; }
out=$scratch/out mnt=$scratch/mnt
mkdir "$mnt"
export LAMINA_RUNTIME_DIR=$scratch/run
at() { local root=$1; shift; "$lamina" image --root "$scratch/$root" "$@" </dev/null; }
mount_of() { "$lamina" mount --root "$scratch/$1" --image "$image" "$mnt" </dev/null || fail lazy::mount "rc $?"; }
unmount() { "$lamina" umount "$mnt"; wait_gone; }
wait_gone() { for _ in $(seq 200); do pgrep -f "mount --root $scratch" >/dev/null || return 0; sleep 0.05; done; fail lazy::gone "a daemon stays"; }
lacks() { "$lamina" layer --root "$scratch/$1" ls --json </dev/null | python3 -c 'import json, sys; print(sum(l["missing"] for l in json.load(sys.stdin)))'; }
engine save -q -o "$scratch/app.tar" lamina/app
at full import "$scratch/app.tar" >"$out" 2>&1 || fail lazy::import "$(tail -n 1 "$out")"
id=$(engine image inspect --format '{{.Id}}' lamina/app)
tree "$(engine image mount lamina/app)" >"$scratch/expected"
engine image umount lamina/app >/dev/null

registry
at full push localhost/lamina/app "$host/x/tars:1" >"$out" 2>&1 || fail lazy::push "$(tail -n 1 "$out")"
digest=$(cat "$out")
equal lazy::push_names_the_manifest "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$host/x/tars:1" 2>&1)" "$digest"
engine rmi -f lamina/app >/dev/null
engine pull -q --tls-verify=false "$host/x/tars:1" >"$out" 2>&1 || fail lazy::podman_pulls "$(tail -n 1 "$out")"
equal lazy::podman_pulls_the_image "$(tail -n 1 "$out")" "$id"
before=$(log_lines)
at full push localhost/lamina/app "$host/x/tars:2" >"$out" 2>&1
equal lazy::push_again_sends_no_blob "$(tail -n "+$((before + 1))" "$scratch/registry.log" | grep -c 'PUT.*/blobs/')" 0
at full push localhost/lamina/app "$host/x/tars@$digest" >"$out" 2>&1 && fail lazy::push_to_a_digest "done"
equal lazy::push_to_a_digest "$(grep -c 'pushed to a tag' "$out")" 1

image=$host/x/own:1
at full push --compress native localhost/lamina/app "$image" >"$out" 2>&1 || fail lazy::push_native "$(tail -n 1 "$out")"
at whole pull "$image" >"$out" 2>&1 || fail lazy::pull_whole "$(tail -n 1 "$out")"
equal lazy::id "$(cat "$out")" "$id"
equal lazy::same_layers "$(ls "$scratch/whole/layers")" "$(ls "$scratch/full/layers")"
# Nothing proves that a layer in our own form is what its diff ID says: tars are read all the same.
equal lazy::tars_are_read "$(at whole --json import "$scratch/app.tar" | grep -c '"kept"')" 0
at lazy pull --lazy=demand "$host/x/tars:1" >"$out" 2>&1 && fail lazy::tars "pulled"
equal lazy::tars "$(grep -c 'its layers are tars' "$out")" 1

before=$(log_lines)
at lazy pull --lazy=demand "$image" >"$out" 2>&1 || fail lazy::pull "$(tail -n 1 "$out")"
equal lazy::pulled_id "$(cat "$out")" "$id"
all=$(lacks lazy)
read -r bytes _ < <(sent "$before")
if [ "$((bytes * 10))" -lt "$all" ]; then pass lazy::little_is_sent; else fail lazy::little_is_sent "$bytes bytes, $all lack"; fi
mount_of lazy
before=$(log_lines)
find "$mnt" -printf '%p %s %m\n' >"$scratch/names"
equal lazy::names_need_nothing "$(sent "$before" | cut -d' ' -f2)" 0
chroot "$mnt" python3 -c 'import json, email, http.client; print("works")' >"$out" 2>&1
equal lazy::python "$(cat "$out")" works
unmount
left=$(lacks lazy)
if [ "$left" -gt $((all / 3)) ] && [ "$left" -lt "$all" ]; then pass lazy::what_is_read_comes; else fail lazy::what_is_read_comes "$left of $all lack"; fi
mount_of lazy

# Without the registry what is there is read, and what lacks is EIO at once, not after a minute.
kill "$registry_pid"; wait "$registry_pid" 2>/dev/null || true
chroot "$mnt" python3 -c 'import json, email, http.client' || fail lazy::there_without_registry "rc $?"
start=$SECONDS
find "$mnt/usr" -type f -size +300k -exec cat {} + >"$scratch/sink" 2>"$out" || true
equal lazy::lacks_is_eio "$(grep -c 'Input/output error' "$out" | sed 's/^[1-9].*/some/')" some
if [ $((SECONDS - start)) -lt 60 ]; then pass lazy::fails_soon; else fail lazy::fails_soon "$((SECONDS - start)) s"; fi
unmount
equal lazy::what_is_there_is_right "$(at lazy verify 2>&1)" ""
. "$repo/scripts/clients.d/lazy-faults.sh"
no_rest lazy
[ "$failed" = 0 ]
