# Shared by tests/clients: sourced after lib.sh and users.sh. Stores, users and programs of a client's own.

# A containers/storage store in $scratch/store that mounts with PROGRAM, for podman and buildah.
container_store() { # PROGRAM RUNTIME [CGROUPS [LINE-OF-OVERLAY-OPTIONS]]
    store=$scratch/store
    mkdir -p "$store"/{graph,run,tmp,volumes}
    cat >"$store/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$store/graph"
runroot = "$store/run"
[storage.options.overlay]
mount_program = "$1"
${4:-}
END
    engine_config "$2" "${3:-enabled}" >"$store/containers.conf"
    cat >>"$store/containers.conf" <<END
tmp_dir = "$store/tmp"
volume_path = "$store/volumes"
END
    export CONTAINERS_STORAGE_CONF=$store/storage.conf CONTAINERS_CONF=$store/containers.conf
}

# No network, no cgroup manager, no limits that a confined root may not set.
engine_config() { # RUNTIME CGROUPS
    cat <<END
[containers]
netns = "none"
cgroups = "$2"
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "$1"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
}

# Makes the host fit for rootless containers, as far as this mount namespace sees it: /dev/fuse open to all, and no
# half-migrated cgroup hierarchy, which crun refuses.
rootless_host() {
    mkdir "$scratch/dev"
    mount -t tmpfs -o mode=755 dev "$scratch/dev"
    mknod -m 666 "$scratch/dev/fuse" c 10 229
    mount --bind "$scratch/dev/fuse" /dev/fuse
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
}

as_user() { # NAME COMMAND...
    local name=$1 home=$scratch/home/$1
    shift
    mkdir -p "$home/run"
    chown "$name:$name" "$home/run"
    (cd "$home" && setpriv --reuid "$name" --regid "$name" --init-groups --reset-env \
        env HOME="$home" USER="$name" XDG_RUNTIME_DIR="$home/run" PATH="${user_path:-$PATH}" \
        ${STORAGE_DRIVER:+STORAGE_DRIVER="$STORAGE_DRIVER"} \
        ${CONTAINERS_CONF:+CONTAINERS_CONF="$CONTAINERS_CONF"} \
        ${CONTAINERS_STORAGE_CONF:+CONTAINERS_STORAGE_CONF="$CONTAINERS_STORAGE_CONF"} "$@")
}
