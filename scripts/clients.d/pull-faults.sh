# Sourced by tests/clients/pull.sh: pulls that are killed, damaged blobs, passwords.

# Ended in the middle of a blob, a pull goes on where it was.
head -c 192M /dev/urandom >"$scratch/context/big"
printf 'FROM scratch\nCOPY big /\n' >"$scratch/context/Dockerfile"
engine build -q -t lamina/big "$scratch/context" >"$scratch/build.log" 2>&1 || fail pull::build_big "$(tail -n 3 "$scratch/build.log")"
engine push -q --tls-verify=false lamina/big "$host/x/big" >"$scratch/push.log" 2>&1 || fail pull::push_big "$(tail -n 1 "$scratch/push.log")"
blob=$(find "$scratch/registry" -name data -size +100M) part=0
size=$(stat -c %s "$blob")
"$lamina" image --root "$root" pull "$host/x/big" >"$out" 2>&1 </dev/null &
pid=$!
until [ "$part" -gt 0 ] || ! kill -0 $pid 2>/dev/null; do
    part=$(find "$root/downloads" -type f -printf '%s\n')
    part=${part:-0}
done
kill -KILL $pid || true
wait $pid || true
part=$(find "$root/downloads" -type f -printf '%s\n')
sleep 0.5 # the registry writes its line about the connection that was cut
before=$(log_lines)
run pull "$host/x/big" >"$out" 2>&1 || fail pull::resume "$(tail -n 1 "$out")"
config=$(run inspect "$host/x/big" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
config=$(stat -c %s "$scratch/registry/docker/registry/v2/blobs/sha256/${config:0:2}/$config/data")
if [ "${part:-0}" -gt 0 ] && [ "$part" -lt "$size" ]; then pass pull::killed; else fail pull::killed "after $part of $size bytes"; fi
equal pull::resumes "$(sent "$before")" "$((size - part + config)) 2"
run verify "$host/x/big" >/dev/null || fail pull::resumed_verify "damage"

# A blob that is not what its digest says is refused, and nothing of the image is left.
run rm "$host/x/big" >/dev/null
run gc >/dev/null
printf 'xxxx' | dd of="$blob" bs=1 seek=1000000 conv=notrunc status=none
refused pull::damaged 'blob sha256:[0-9a-f]* is damaged' "$host/x/big"
equal pull::damaged_leaves_nothing "$(run ls | grep -c big) $(find "$root/downloads" -type f | wc -l)" "0 0"

# Passwords.
kill $registry_pid
wait $registry_pid || true
htpasswd -Bbn user 'secret!' >"$scratch/htpasswd" 2>/dev/null
registry "$scratch/htpasswd"
refused pull::no_password '401.*UNAUTHORIZED' "$host/x/app:1"
refused pull::wrong_password '401.*UNAUTHORIZED' "$host/x/app:1" --creds 'user:wrong-one'
equal pull::passwords_are_not_shown "$(grep -c wrong-one "$out")" 0
run pull --creds 'user:secret!' "$host/x/app:1" >"$out" 2>&1 && pass pull::password || fail pull::password "$(cat "$out")"
printf '{"auths":{"%s":{"auth":"%s"}}}' "$host" "$(printf 'user:secret!' | base64)" >"$scratch/auth.json"
run pull --authfile "$scratch/auth.json" "$host/x/app:1" >"$out" 2>&1 && pass pull::authfile || fail pull::authfile "$(cat "$out")"
kill $registry_pid
wait $registry_pid || true
