#!/bin/bash
# Containers of our own: a named writable layer over an image, and one that goes with its mount; volumes stay. And what
# collection leaves alone for them. Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
export LAMINA_ROOT=$scratch/root LAMINA_RUNTIME_DIR=$scratch/run
tree=$(mktemp -d -p "$scratch") mnt=$scratch/mnt
mkdir "$mnt" "$scratch/ro" "$tree/data"
echo base >"$tree/file"
head -c 300000 /dev/urandom >"$tree/large"
echo seed >"$tree/data/seed"
chown 7:8 "$tree"
chmod 1751 "$tree"
run() { "$lamina" "$@" </dev/null; }
refused() { # NAME WORDS COMMAND...: fails, and says so
    local said
    if said=$(run "${@:3}" 2>&1); then fail "container::$1" "done"; else
        case $said in *"$2"*) pass "container::$1" ;; *) fail "container::$1" "$said" ;; esac
    fi
}
cd "$scratch"
run image --root root import "$tree" -t app >/dev/null
run mount --root root --image app "$scratch/ro"
equal container::relative_root "$(cmp "$scratch/ro/large" "$tree/large" && find root/materials -type f | wc -l)" 1
run umount "$scratch/ro"
equal container::create "$(run container create --name web --volume data:/data app)" web
refused name_taken "already exists" container create --name web app
refused no_such_image "does not exist" container create nope
refused bad_name "invalid container name" container create --name ../x app
place=$(run container start web)
equal container::root "$(stat -c '%a %u:%g' "$place")" "1751 7:8"
equal container::volume_is_filled "$(cat "$place/data/seed")" seed
echo more >"$place/data/more"
printf changed | dd of="$place/large" conv=notrunc status=none
equal container::ls "$(run container ls | grep -c "$place")" 1
equal container::status "$(run status | head -n 1 | cut -d' ' -f1-3)" "web on $place"
refused started "in use" container start web
refused rm_while_mounted "in use" container rm web
refused image_in_use 'container "web"' image rm app
equal container::stop "$(run container stop web)" web
equal container::stopped "$(run container ls | grep -c "$place" || true)" 0
before=$(run layer ls)
run image gc >/dev/null
equal container::gc_keeps_its_layers "$(run layer ls)" "$before"
run container start web "$mnt" >/dev/null
equal container::writes_stay "$(head -c 7 "$mnt/large") $(cat "$mnt/data/more")" "changed more"
run mount --image app "$scratch/ro"
equal container::base_is_untouched "$(cmp "$scratch/ro/large" "$tree/large" && echo same)" same
run umount "$scratch/ro"
id=$(run container inspect web | sed -n 's/.*"id": "\([0-9a-f]*\)".*/\1/p')
equal container::rm_force "$(run container rm -f "${id:0:9}")" "${id:0:9}"
refused removed "does not exist" container inspect web
equal container::writes_vanish "$(ls -A "$LAMINA_ROOT/containers")" ""
equal container::volume_stays "$(ls "$LAMINA_ROOT/volumes/data/_data" | paste -sd' ')" "more seed"

run mount --image app --ephemeral "$mnt"
echo x >"$mnt/new"
rm "$mnt/file"
equal container::ephemeral_root "$(stat -c '%a %u:%g' "$mnt")" "1751 7:8"
run umount "$mnt"
equal container::ephemeral_vanishes "$(ls -A "$LAMINA_ROOT/containers")" ""
run mount --image app -o ephemeral "$mnt"
kill -KILL "$(run status --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
umount -l "$mnt"
equal container::killed_leaves "$(ls -A "$LAMINA_ROOT/containers" | wc -l)" 1
run image gc >/dev/null
equal container::killed_is_swept "$(ls -A "$LAMINA_ROOT/containers")" ""
equal container::image_can_go "$(run image rm app)" app
run image gc >/dev/null
equal container::nothing_left "$(find "$LAMINA_ROOT/layers" "$LAMINA_ROOT/materials" -type f | wc -l)" 0
[ "$failed" = 0 ]
