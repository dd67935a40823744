#!/bin/bash
# An image of several layers that podman built, imported in every form in which it can be saved, against what podman
# itself mounts: no difference. And what the store does with it: verify, remove, collect.
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
real_image || fail image::build "$(tail -n 3 "$scratch/build.log")"
# The root is left out: the base image says 755, which podman turns into 555 (the default of its own store).
tree() { "$repo/scripts/clients.d/tree-hash" "$1" --list | sort | grep -vF "[b'.', "; }
expected=$scratch/expected
tree "$(engine image mount lamina/app)" >"$expected"
engine image umount lamina/app >/dev/null
root=$scratch/root mnt=$scratch/mnt
mkdir "$mnt"
run() { "$lamina" image --root "$root" "$@" </dev/null; }

form() { # NAME FILE: imports it, mounts it, compares
    run import "$2" -t "localhost/$1" >"$scratch/$1.log" 2>&1 || fail "image::$1::import" "$(tail -n 1 "$scratch/$1.log")"
    "$lamina" mount --root "$root" --image "localhost/$1" "$mnt" || fail "image::$1::mount" "rc $?"
    equal "image::$1::tree" "$(diff "$expected" <(tree "$mnt") | head -n 5)" ""
    "$lamina" umount "$mnt"
}

engine save -q -o "$scratch/docker.tar" lamina/app
engine save -q --format oci-archive -o "$scratch/oci.tar" lamina/app
engine save -q --format oci-dir -o "$scratch/oci" lamina/app
gzip -1 -k "$scratch/docker.tar"
form docker "$scratch/docker.tar"
"$lamina" mount --root "$root" --image localhost/docker "$mnt"
equal image::root "$(stat -c '%a %Y' "$mnt")" "$(stat -c '%a %Y' "$("$repo/scripts/debian-tree")")"
"$lamina" umount "$mnt"
form oci "$scratch/oci.tar"
form directory "$scratch/oci"
form gzip "$scratch/docker.tar.gz"
equal image::layers "$(run --json history localhost/docker | grep -c '"layer": "')" 10
equal image::one_store_of_layers "$(run --json layers | grep -c '"objects"')" "$(tar -xOf "$scratch/docker.tar" manifest.json | grep -o '\.tar"' | sort | wc -l)"
equal image::id "$(run --json inspect localhost/docker | sed -n 's/^ *"id": "\([0-9a-f]*\)",$/\1/p' | head -n 1)" \
    "$(engine image inspect --format '{{.Id}}' lamina/app)"

mkdir "$scratch"/{upper,work}
"$lamina" mount --root "$root" --image localhost/docker --upper "$scratch/upper" --work "$scratch/work" "$mnt"
chroot "$mnt" sh -c 'echo more >>/kept && rm -r /seed && mv /renamed /again && ln /links/a /links/d' || fail image::upper "rc $?"
equal image::upper "$(cat "$mnt/kept" "$mnt/again/inner/more" | paste -sd' ') $(stat -c %h "$mnt/links/d")" "x more more 5"
"$lamina" umount "$mnt"
equal image::verify "$(run verify && echo clean)" clean
largest=$(find "$root/layers" -name data -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
printf '\377' | dd of="$largest" bs=1 seek=$(($(stat -c %s "$largest") / 2)) conv=notrunc status=none
equal image::verify_names_files "$(run verify | grep -c '^  /')" "$(run verify | grep -c '^  ')"
run verify >/dev/null && fail image::damage "unseen" || pass image::damage
run rm localhost/docker localhost/oci localhost/directory localhost/gzip >/dev/null
run gc >/dev/null
equal image::nothing_left "$(ls "$root/layers" "$root/images" "$root/names" | grep -vc ':$' | sed 's/^[0-9]*$/&/') $(find "$root/layers" -mindepth 1 | wc -l)" "$(printf '2 0')"

# Ended at any moment, an import or a collection leaves a store that is whole, and the next one does its work.
for step in $(seq 1 24); do
    timeout -s KILL "0.$(printf %02d $((step * 3)))" "$lamina" image --root "$root" import "$scratch/oci.tar" -t localhost/k >/dev/null 2>&1 || true
    [ $((step % 3)) != 0 ] || timeout -s KILL "0.0$((step % 9 + 1))" "$lamina" image --root "$root" gc >/dev/null 2>&1 || true
    run verify >"$scratch/verify" 2>&1 || break
done
equal image::killed_store_is_whole "$step $(cat "$scratch/verify")" "24 "
form k "$scratch/oci.tar"
run gc >/dev/null
equal image::killed_leaves_nothing "$(find "$root/layers" -mindepth 1 -maxdepth 1 -name '.*' | wc -l)" 0
no_rest image
[ "$failed" = 0 ]
