# Part of scripts/posix, sourced: 12 runs of 10,000 operations, in three mixes, on new files and on a lower one.
mixes=$scratch/fsx
mkdir -p "$mixes" "$results/fsx"
echo 'flen = 262144' >"$mixes/default"
cat >"$mixes/all" <<END
flen = 1048576
[opsize]
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
truncate = 10
invalidate = 1
mapwrite = 10
fsync = 1
fdatasync = 1
posix_fallocate = 5
punch_hole = 5
sendfile = 5
posix_fadvise = 1
copy_file_range = 5
END
printf 'flen = 131072\n[opsize]\nmax = 512\n[weights]\ntruncate = 20\nmapwrite = 20\nclose_open = 10\n' >"$mixes/small"
for seed in $(seq 12); do
    mix=$(echo default all small | cut -d' ' -f$((seed % 3 + 1)))
    file=$base/mnt/fsx.$seed
    [ "$seed" -gt 9 ] && cp "$base/mnt/numbers" "$base/mnt/fsx.$seed"
    log=$results/fsx/$seed.$mix
    if "$tools/bin/fsx" -q -N 10000 -S "$seed" -f "$mixes/$mix" -P "$results/fsx" "$file" >"$log" 2>&1 </dev/null; then
        pass "fsx::$mix::seed_$seed"
    else
        fail "fsx::$mix::seed_$seed" "$(tail -n 1 "$log")"
    fi
    rm -f "$file"
done
