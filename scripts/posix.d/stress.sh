# Part of scripts/posix, sourced: the file system class of stress-ng with --verify, one stressor at a time, 2 s of
# 2 instances each. Left out: bind-mount, which stress-ng itself refuses to run. binderfs and verity need what the host
# lacks; a skip of any other stressor is a failure.
skippable="binderfs verity"
stressors=$(stress-ng --class "filesystem?" | sed "s/^class .*stressors: //; s/bind-mount//")
mkdir "$base/mnt/stress"
for stressor in $stressors aio readahead revio seek sendfile splice mmap msync memfd; do
    log=$results/stress-$stressor.log code=0
    timeout -k 10 120 stress-ng --"$stressor" 2 --timeout 2s --verify --temp-path "$base/mnt/stress" \
        --oomable --log-brief >"$log" 2>&1 </dev/null || code=$?
    case $code in
        0) pass "stress::$stressor" ;;
        3 | 4) [[ " $skippable " == *" $stressor "* ]] && pass "stress::$stressor" || fail "stress::$stressor" "skipped" ;;
        *) fail "stress::$stressor" "exit status $code: $(grep -m 1 -i fail "$log")" ;;
    esac
    mountpoint -q "$base/mnt" && [ -d "$base/mnt/stress" ] || die "the mount is gone after $stressor"
done
equal stress::nothing_left "$(ls -A "$base/mnt/stress")" ""
