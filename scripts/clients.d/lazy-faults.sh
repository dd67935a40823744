# Part of tests/clients/lazy.sh: what comes while daemons are killed and registries err, and the end of it.

# The registry comes back where it was; the mount reads on.
sed -i "s/addr: .*/addr: $host/" "$scratch/registry.yml"
start_registry() {
    docker-registry serve "$scratch/registry.yml" >>"$scratch/registry.log" 2>&1 </dev/null &
    registry_pid=$!
    for _ in $(seq 100); do
        ! (: >"/dev/tcp/${host%:*}/${host#*:}") 2>/dev/null || return 0
        sleep 0.1
    done
}
start_registry
for step in $(seq 1 8); do
    mount_of lazy
    find "$mnt/usr/lib" -type f -exec cat {} + >/dev/null 2>&1 &
    reader=$!
    sleep "0.$(printf %02d $((step * 3)))"
    pkill -KILL -f "mount --root $scratch/lazy" || true
    wait "$reader" || true
    umount -l "$mnt"
    wait_gone
    at lazy verify >"$out" 2>&1 || break
done
equal lazy::killed_daemons_leave_what_is_right "$step $(cat "$out")" "8 "

# Other bytes under the digest of a blob: an error, and never other data.
at bad pull --lazy=demand "$image" >/dev/null 2>&1 || fail lazy::pull_again "rc $?"
blob=$(find "$scratch/registry" -path '*/blobs/sha256/*' -name data -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
cp "$blob" "$scratch/kept"
python3 -c 'import sys; f = open(sys.argv[1], "r+b"); n = f.seek(0, 2); [(f.seek(at), f.write(b"\0" * 64)) for at in range(200, n, 4000)]' "$blob"
mount_of bad
find "$mnt/usr" -type f -exec cat {} + >/dev/null 2>"$out" || true
equal lazy::other_bytes_are_eio "$(grep -c 'Input/output error' "$out" | sed 's/^[1-9].*/some/')" some
{ find "$mnt/usr" -type f -exec sha256sum {} + 2>/dev/null || true; } | sed "s|$mnt||" | sort >"$scratch/sums"
unmount
cp "$scratch/kept" "$blob"
mount_of bad
equal lazy::no_other_data "$(find "$mnt/usr" -type f -exec sha256sum {} + | sed "s|$mnt||" | sort | comm -13 - "$scratch/sums" | head -n 3)" ""
unmount

# All of it, while it is mounted; then the layers are as any others.
at rest pull --lazy "$image" >/dev/null 2>&1 || fail lazy::pull_rest "rc $?"
mount_of rest
for _ in $(seq 300); do
    [ "$(find "$scratch/rest/layers" -name present | wc -l)" != 0 ] || break
    sleep 0.1
done
equal lazy::all_comes "$(find "$scratch/rest/layers" -name present | wc -l) $(lacks rest)" "0 0"
kill "$registry_pid"; wait "$registry_pid" 2>/dev/null || true
equal lazy::tree "$(tree "$mnt" | diff "$scratch/expected" - | head -n 5)" ""
unmount
equal lazy::verify "$(at rest verify 2>&1)" ""
for layer in "$scratch"/full/layers/*; do cmp "$layer/data" "$scratch/rest/layers/${layer##*/}/data" || fail lazy::same_data "$layer"; done
# By way of a file, and over what is there in part.
at full export localhost/lamina/app --format oci-archive --compress native -o "$scratch/own.tar" >"$out" 2>&1 || fail lazy::export "$(tail -n 1 "$out")"
at lazy import "$scratch/own.tar" -t again >"$out" 2>&1 || fail lazy::import_completes "$(tail -n 1 "$out")"
equal lazy::import_completes "$(tail -n 1 "$out") $(lacks lazy)" "$id 0"

# Nothing proves what a layer in our own form holds: it takes no image's place, and what is made of it says so.
at full export localhost/lamina/app --format oci-dir --compress native -o "$scratch/oci" >/dev/null
python3 - "$scratch/oci" <<'END'
import hashlib, json, os, sys
os.chdir(sys.argv[1])
index = json.load(open("index.json"))
blob = lambda digest: "blobs/" + digest.replace(":", "/")
manifest = json.load(open(blob(index["manifests"][0]["digest"])))
manifest["layers"] = manifest["layers"][-2:] * (len(manifest["layers"]) // 2)
raw = json.dumps(manifest).encode()
digest = "sha256:" + hashlib.sha256(raw).hexdigest()
open(blob(digest), "wb").write(raw)
index["manifests"] = [{**index["manifests"][0], "digest": digest, "size": len(raw)}]
json.dump(index, open("index.json", "w"))
END
at full import "$scratch/oci" -t other >"$out" 2>&1 && fail lazy::other_layers "taken"
equal lazy::other_layers "$(grep -c 'is there with other layers' "$out")" 1
at fresh import "$scratch/oci" -t other >"$out" 2>&1 || fail lazy::other_layers_alone "$(tail -n 1 "$out")"
at fresh import "$scratch/app.tar" >"$out" 2>&1 || fail lazy::tars_take_the_place "$(tail -n 1 "$out")"
equal lazy::tars_take_the_place "$(at fresh inspect "$id" | grep -c "$(ls "$scratch/full/layers" | head -n 1)")" 1
own() { "$lamina" container --root "$scratch/rest" "$@" </dev/null; }
own create --name made "$image" >/dev/null
echo new >"$(own start made)/new"
own stop made >/dev/null
at rest commit made -t committed >"$out" 2>&1 || fail lazy::commit "$(tail -n 1 "$out")"
equal lazy::commit_proves_nothing "$(at rest inspect committed | grep -c '"diff_id": "sha256:')" 1
own rm made >/dev/null
