#!/bin/bash
# Part of scripts/xfstests: ends a test that runs longer than LIMIT seconds, and notes it in FILE.
#   watchdog.sh LIMIT FILE
# The test's session is killed; 30 s later, if something still hangs in a mount, its FUSE connection is aborted.
# Sees only the process namespace of the run.
set -u
limit=$1 file=$2 last="" since=$SECONDS
connections=$(mktemp -d)
mount -t fusectl fusectl "$connections" 2>/dev/null

while sleep 2; do
    pid=$(pgrep -o -f '^/bin/bash \./tests/' || true)
    if [ "$pid" != "$last" ] || [ -z "$pid" ]; then
        last=$pid since=$SECONDS
        continue
    fi
    [ $((SECONDS - since)) -ge "$limit" ] || continue
    tr '\0' ' ' <"/proc/$pid/cmdline" >>"$file"
    echo "after $limit s" >>"$file"
    for mount in "$scratch/test" "$scratch/scratch"; do
        device=$(awk -v at="$mount" '$5 == at { split($3, d, ":"); print d[2] }' /proc/self/mountinfo | tail -n 1)
        [ -n "$device" ] && [ $((SECONDS - since)) -gt $((limit + 30)) ] && echo 1 >"$connections/$device/abort"
    done
    pkill -KILL -s "$(ps -o sid= -p "$pid" | tr -d ' ')"
done
