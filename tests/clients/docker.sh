#!/bin/bash
# dockerd with its graph driver `fuse-overlayfs`, which runs the program of that name from PATH: ours.
# Starts a dockerd of its own below $scratch. Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
mkdir "$scratch/bin" "$scratch/docker"
cp "$lamina" "$scratch/bin/fuse-overlayfs"
program=fuse-overlayfs
PATH=$scratch/bin:$PATH
export DOCKER_HOST=unix://$scratch/docker/sock DOCKER_BUILDKIT=0 DOCKER_CONFIG=$scratch/docker/client
engine() { docker "$@" </dev/null; }
echo '{"deprecated-key-path": "'"$scratch/docker/key.json"'"}' >"$scratch/docker/config"
dockerd --config-file "$scratch/docker/config" --data-root "$scratch/docker/data" --exec-root "$scratch/docker/exec" \
    -p "$scratch/docker/pid" -H "$DOCKER_HOST" --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    --bridge=none --storage-driver fuse-overlayfs --exec-opt native.cgroupdriver=cgroupfs >"$scratch/dockerd.log" 2>&1 &
for _ in $(seq 300); do
    engine info >/dev/null 2>&1 && break
    sleep 0.1
done
equal docker::driver "$(engine info --format '{{.Driver}}' 2>&1)" fuse-overlayfs
base_image
engine build -q --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail docker::build "$(tail -n 3 "$scratch/build.log")"
judge docker::image "$(engine run --rm --network none lamina/app sh -c "$judge_image" 2>&1)"
use_containers docker --network none
engine rm -f $(engine ps -aq) >/dev/null 2>&1 || true
engine rmi -f lamina/second lamina/app lamina/base >/dev/null || fail docker::rmi "images cannot be removed"
equal docker::no_mount_left "$(findmnt -rno TARGET,FSTYPE | grep -c "$scratch.*fuse" || true)" 0
if gone fuse-overlayfs; then pass docker::no_daemon_left; else fail docker::no_daemon_left "$(pgrep -xa fuse-overlayfs)"; fi
kill "$(cat "$scratch/docker/pid")"
wait
[ "$failed" = 0 ]
