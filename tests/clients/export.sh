#!/bin/bash
# The way out: an image that podman built, through the store and back: the same id and layers in podman, skopeo and umoci.
# Then a container that is changed and committed: what podman loads is what the mount showed. Part of scripts/clients.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc
engine() { podman "$@" </dev/null; }
real_image || fail export::build "$(tail -n 3 "$scratch/build.log")"
tree() { "$repo/scripts/clients.d/tree-hash" "$1" --list | sort | grep -vF "[b'.', "; }
image_tree() { # NAME: what podman mounts
    tree "$(engine image mount "$1")"
    engine image umount "$1" >/dev/null
}
shown() { engine image inspect --format '{{.Id}} {{.RootFS.Layers}}' "$1"; }
export LAMINA_ROOT=$scratch/root LAMINA_RUNTIME_DIR=$scratch/run
run() { "$lamina" "$@" </dev/null; }
engine save -q -o "$scratch/app.tar" lamina/app
run image import "$scratch/app.tar" >"$scratch/import.log" 2>&1 || fail export::import "$(tail -n 1 "$scratch/import.log")"
expected=$(shown lamina/app)
image_tree lamina/app >"$scratch/expected"

back() { # NAME FILE: loads it into podman in place of the image
    engine rmi -f localhost/lamina/app >/dev/null 2>&1 || true
    engine load -q -i "$2" >"$scratch/load.log" 2>&1 || fail "export::$1::load" "$(paste -sd" " "$scratch/load.log")"
    equal "export::$1::id_and_layers" "$(shown localhost/lamina/app 2>&1)" "$expected"
}
run image export localhost/lamina/app -o "$scratch/docker.tar" >/dev/null
back docker "$scratch/docker.tar"
equal export::docker::tree "$(image_tree localhost/lamina/app | diff "$scratch/expected" - | head -n 5)" ""
run image export localhost/lamina/app --format oci-archive -o - >"$scratch/oci.tar"
back oci_gzip "$scratch/oci.tar"
run image export localhost/lamina/app --format oci-archive --compress zstd -o "$scratch/zstd.tar" >/dev/null
back oci_zstd "$scratch/zstd.tar"
run image export localhost/lamina/app --format oci-dir --compress none -o "$scratch/oci" >/dev/null
# podman itself takes no path with capitals here.
engine rmi -f localhost/lamina/app >/dev/null
skopeo copy -q "oci:$scratch/oci" containers-storage:localhost/lamina/app >"$scratch/load.log" 2>&1 ||
    fail export::oci_dir::copy "$(tail -n 1 "$scratch/load.log")"
equal export::oci_dir::id_and_layers "$(shown localhost/lamina/app 2>&1)" "$expected"
ids() { skopeo inspect --config "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["rootfs"]["diff_ids"])'; }
equal export::skopeo "$(ids "oci:$scratch/oci" 2>&1)" "$(ids "docker-archive:$scratch/app.tar")"
umoci unpack --image "$scratch/oci:$(umoci ls --layout "$scratch/oci" | head -n 1)" "$scratch/bundle" >"$scratch/umoci.log" 2>&1 ||
    fail export::umoci "$(tail -n 1 "$scratch/umoci.log")"
equal export::umoci "$(tree "$scratch/bundle/rootfs" | diff "$scratch/expected" - | grep -c '^[<>]')" 0
run image export localhost/lamina/app --format oci-dir -o "$scratch/oci" >"$scratch/again" 2>&1 && fail export::refused "replaced a directory"
equal export::refused "$(grep -c "oci: .*not empty" "$scratch/again")" 1

# Changes of every kind, and a container of podman with the same.
run container create --name c localhost/lamina/app >/dev/null
place=$(run container start c)
change='echo more >>/kept && rm -r /seed /usr/share/man && mv /renamed /again && ln /links/a /links/d && chmod 700 /etc/apt &&
    mkdir -p /new/deep && echo x >/new/deep/f && truncate -s 64M /hole && echo end >>/hole && mkfifo /fifo &&
    rm -r /usr/share/doc && mkdir /usr/share/doc && echo d >/usr/share/doc/new && rm /etc/fstab && chown 5:6 /etc/passwd &&
    echo last >>/links/b && rm /links/b && touch -d 1999-01-01 /new/old && python3 -c "import os; os.setxattr(\"/kept\", \"user.x\", b\"y\")"'
chroot "$place" sh -c "$change" || fail export::change "rc $?"
tree "$place" >"$scratch/live"
run image commit c -t committed >"$scratch/refused" 2>&1 && fail export::commit_of_a_mount "done"
equal export::commit_of_a_mount "$(grep -c 'in use by the mount' "$scratch/refused")" 1
run container stop c >/dev/null
run image diff c >"$scratch/diff"
engine create -q --name changed localhost/lamina/app sh -c "$change" >/dev/null
engine start -a changed >/dev/null 2>&1 || true
# podman tells of a directory that was made anew that it changed, and not of what it held before.
equal export::diff "$(engine diff changed | grep -v ' /run\| /proc\| /sys\| /dev\|^C /etc$' | sort | comm -23 - <(sort "$scratch/diff") | head -n 5)" ""
for step in $(seq 1 12); do
    timeout -s KILL "0.$(printf %03d $((step * 25)))" "$lamina" image commit c -t killed >/dev/null 2>&1 || true
    run image verify >"$scratch/verify" 2>&1 || break
done
equal export::killed_commit_leaves_a_whole_store "$step $(cat "$scratch/verify")" "12 "
id=$(run image commit c -t committed -m why)
equal export::history "$(run image history committed | tail -n 1 | cut -d' ' -f3-)" "lamina image commit"
mkdir "$scratch/mnt"
run mount --image committed "$scratch/mnt"
equal export::committed "$(tree "$scratch/mnt" | diff "$scratch/live" - | head -n 5)" ""
run umount "$scratch/mnt"
run image export committed -o "$scratch/committed.tar" >/dev/null
engine load -q -i "$scratch/committed.tar" >"$scratch/load.log" 2>&1 || fail export::committed_load "$(tail -n 1 "$scratch/load.log")"
equal export::committed_id "$(engine image inspect --format '{{.Id}}' localhost/committed)" "$id"
equal export::committed_in_podman "$(image_tree localhost/committed | diff "$scratch/live" - | head -n 5)" ""
# What was linked to is in the upper with all its names, and the same as before.
shared='^C /links/[abc]$\|^C /private'
equal export::image_diff "$(run image diff committed | grep -v "$shared" | sort)" "$(grep -v "$shared" "$scratch/diff" | sort)"
run container rm c >/dev/null
run image gc >/dev/null
equal export::verify "$(run image verify && find "$LAMINA_ROOT/layers" "$LAMINA_ROOT/recipes" -name '.*' -mindepth 1 | wc -l)" 0
[ "$failed" = 0 ]
