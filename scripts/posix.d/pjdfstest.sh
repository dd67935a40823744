# Part of scripts/posix, sourced: all 398 cases of pjdfstest. Those that remount the mount read-only run by
# themselves, since other cases leave files open for writing, which makes such a remount fail on any file system.
mkdir -m 755 "$scratch/second"
mount -t tmpfs second "$scratch/second"

pjdfstest() { # ALLOW_REMOUNT [PATTERN]: prints `NAME VERDICT` lines
    cat >"$scratch/pjdfstest.toml" <<END
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
stat_st_birthtime = {}
[settings]
naptime = 0.02
allow_remount = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
END
    shift
    { "$tools/bin/pjdfstest" -c "$scratch/pjdfstest.toml" -p "$base/mnt" -s "$scratch/second" "$@" \
        2>>"$results/pjdfstest.err" </dev/null || true; } | sed 's/\x1b\[[0-9;]*m//g' |
        tee -a "$results/pjdfstest.log" | grep -E '^[a-z_0-9]+(::[a-z_0-9]+)+ +(ok|FAILED|skipped)' || true
}

{
    pjdfstest false | grep -v '::erofs_'
    pjdfstest true ::erofs_
} >"$results/pjdfstest.cases"
while read -r name verdict; do
    case "$name $verdict" in
        *" ok") pass "pjdfstest::$name" ;;
        # The C library knows no LINK_MAX of FUSE, nor of overlayfs: the case cannot run there.
        "link::link_count_max skipped") echo "skip pjdfstest::$name: LINK_MAX is unknown" ;;
        *) fail "pjdfstest::$name" "$verdict" ;;
    esac
done <"$results/pjdfstest.cases"
equal pjdfstest::cases "$(wc -l <"$results/pjdfstest.cases")" 398
