# Shared by tests/clients: sourced after build.sh. What people do with containers of lamina/app.

use_containers() { # PREFIX [RUN-OPTION...]
    local prefix=$1 id
    shift
    engine run --name one "$@" lamina/app sh -c 'echo hi >/newfile && rm /renamed/inner/file && mv /multi /moved &&
        echo added >/etc/added && grep " / " /proc/mounts' >"$scratch/one.log" 2>&1 || fail "$prefix::run" "$(cat "$scratch/one.log")"
    equal "$prefix::root_is_fuse" "$(grep -c ' / fuse' "$scratch/one.log")" 1
    equal "$prefix::diff" "$(engine diff one | grep -E ' /(newfile|renamed|moved|multi|etc/added|seed|links)' | sort | tr '\n' ';')" \
        "A /etc/added;A /moved;A /moved/deep;A /newfile;C /renamed;C /renamed/inner;D /multi;D /renamed/inner/file;"
    engine commit one lamina/second >"$scratch/commit.log" 2>&1 || fail "$prefix::commit" "$(cat "$scratch/commit.log")"
    equal "$prefix::committed" "$(engine run --rm "$@" lamina/second sh -c 'cat /newfile /etc/added; ls /renamed/inner; ls -d /multi /moved/deep 2>/dev/null' 2>&1 | tr '\n' ' ')" \
        "hi added more /moved/deep "
    echo copied >"$scratch/copied"
    chmod 644 "$scratch/copied"
    engine cp "$scratch/copied" one:/seed/copied >/dev/null
    equal "$prefix::cp" "$(engine cp one:/seed/copied - | tar xO) $(engine cp one:/newfile - | tar xO)" "copied hi"
    engine start -a one >/dev/null 2>&1 || true
    equal "$prefix::restarted" "$(engine cp one:/etc/added - | tar xO)" added
    equal "$prefix::volume_filled" "$(engine run --rm "$@" -v data:/renamed/inner lamina/app sh -c 'ls /renamed/inner; rm /renamed/inner/file; echo v >/renamed/inner/v' 2>&1 | tr '\n' ' ')" "file more "
    equal "$prefix::volume_kept" "$(engine run --rm "$@" -v data:/renamed/inner lamina/app sh -c 'ls /renamed/inner' 2>&1 | tr '\n' ' ')" "more v "
    remove_container "$prefix" one
}

# The engine cleans up behind a container in a process of its own: until that is done a removal finds /dev/shm busy.
remove_container() { # PREFIX NAME
    for _ in $(seq 40); do
        engine rm -f "$2" >/dev/null 2>"$scratch/rm.log" && return
        sleep 0.25
    done
    fail "$1::rm" "$(tail -n 1 "$scratch/rm.log")"
}

# A host directory given as `:O`: the container's changes stay in the container. Not in docker.
use_overlay_volume() { # PREFIX OWNER [RUN-OPTION...]
    local prefix=$1 owner=$2
    shift 2
    mkdir -p "$scratch/over/dir"
    echo host >"$scratch/over/file"
    echo host >"$scratch/over/dir/deep"
    chown -R "$owner" "$scratch/over"
    equal "$prefix::overlay_volume" "$(engine run --rm "$@" -v "$scratch/over:/over:O" lamina/app sh -c \
        'echo in >>/over/file; rm -r /over/dir; mkdir /over/dir; ls /over/dir; cat /over/file' 2>&1 | tr '\n' ' ')" "host in "
    equal "$prefix::overlay_volume_host" "$(cat "$scratch/over/file" "$scratch/over/dir/deep" | tr '\n' ' ')" "host host "
}

# Removes all and checks that neither mount nor daemon stays.
no_rest() { # PREFIX
    engine rm -af >/dev/null 2>&1 || true
    engine rmi -af >"$scratch/rmi.log" 2>&1 || fail "$1::rmi" "$(tail -n 1 "$scratch/rmi.log")"
    equal "$1::no_mount_left" "$(findmnt -rno TARGET,FSTYPE | grep -E 'fuse\.|fuse$' | grep -c "$scratch" || true)" 0
    if gone "$program"; then pass "$1::no_daemon_left"; else fail "$1::no_daemon_left" "$(pgrep -xa "$program")"; fi
}

# All that a plain user's podman must do.
rootless_judge() { # PREFIX
    base_image
    engine build -q --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 ||
        fail "$1::build" "$(tail -n 3 "$scratch/build.log")"
    judge "$1::image" "$(engine run --rm lamina/app sh -c "$judge_image" 2>&1)"
    use_containers "$1"
    use_overlay_volume "$1" lamina-test:
    equal "$1::keep_id" "$(engine run --rm --userns keep-id lamina/app sh -c \
        'id -u; touch /tmp/mine; stat -c %U:%u /tmp/mine /etc/passwd' 2>&1 | tr '\n' ' ')" \
        "$(id -u lamina-test) lamina-test:$(id -u lamina-test) root:0 "
}
