# Shared by the scripts: sourced, never run. Gives paths, the build, an isolated place to work in, and
# checks that count. Environment: LAMINA_BIN (the program to judge; default: a release build),
# LAMINA_TOOLS (where the tools from crates.io stand; default target/tools).
set -eu -o pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${LAMINA_TOOLS:-$repo/target/tools}
fuse_overlayfs=$tools/bin/fuse-overlayfs
lamina=${LAMINA_BIN:-${CARGO_TARGET_DIR:-$repo/target}/release/lamina}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Makes sure that $lamina is there and fresh.
build() {
    if [ -z "${LAMINA_BIN:-}" ]; then
        cargo build --quiet --release -p lamina --manifest-path "$repo/Cargo.toml"
    fi
    [ -x "$lamina" ] || die "no program at $lamina"
}

# Runs the script again in mount and process namespaces of its own: what it mounts and starts ends with it.
isolate() {
    [ "$(id -u)" = 0 ] || die "needs root, for mounts and users"
    if [ -n "${LAMINA_ISOLATED:-}" ]; then
        # Mounts write rows into the table of libmount there.
        [ ! -d /run/mount ] || mountpoint -q /run/mount || mount -t tmpfs libmount /run/mount
        return
    fi
    export LAMINA_ISOLATED=1
    exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@"
}

# Makes $scratch, a directory that everybody may enter; leave_nothing empties and removes it at exit.
make_scratch() {
    scratch=$(mktemp -d "${LAMINA_SCRATCH:-${TMPDIR:-/tmp}}/lamina-XXXXXX")
    chmod 755 "$scratch"
    trap leave_nothing EXIT
    trap 'exit 130' INT TERM HUP
}

# Unmounts all below $scratch, newest first, frees its loop devices, and removes it.
leave_nothing() {
    cd /
    findmnt -rno TARGET | { grep -E "^$scratch(/|$)" || true; } | tac | while read -r mount; do
        umount "$mount" 2>/dev/null || umount -l "$mount" || true
    done
    losetup -nO NAME,BACK-FILE | { grep -F " $scratch/" || true; } | cut -d' ' -f1 | xargs -r -n 1 losetup -d
    rm -rf --one-file-system "$scratch"
}

# Mounts BASE/lower under BASE/upper (plain: BASE/lower alone) at BASE/mnt.
union_mount() { # MODE BASE [OPTIONS]
    local layers="lowerdir=$2/lower,upperdir=$2/upper,workdir=$2/work${3:+,$3}"
    mkdir -p "$2/lower" "$2/upper" "$2/work" "$2/mnt"
    case $1 in
        ours) "$lamina" -o "$layers,dev" "$2/mnt" ;;
        kernel) mount -t overlay -o "$layers" overlay "$2/mnt" ;;
        fuse-overlayfs) "$fuse_overlayfs" -o "$layers,allow_other,dev,suid" "$2/mnt" ;;
        plain) mount --bind "$2/lower" "$2/mnt" ;;
        *) die "unknown mode '$1': ours, kernel, fuse-overlayfs or plain" ;;
    esac
}

# Puts the program as helpers of mount(8) in front of /usr/sbin, for this mount namespace only.
own_helper() { # NAME...
    local name
    mkdir -p "$scratch/sbin"
    for name in "$@"; do
        [ -e "$scratch/sbin/$name" ] || ln -s "$lamina" "$scratch/sbin/$name"
    done
    mount -t overlay -o "ro,lowerdir=$scratch/sbin:/usr/sbin" sbin /usr/sbin
}

# Counts and prints one result: `ok NAME`, or `FAIL NAME reason`.
failed=0
pass() { echo "ok $1"; }
fail() { # NAME REASON
    echo "FAIL $1 $2"
    failed=$((failed + 1))
}
equal() { # NAME GOT EXPECTED
    if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "got '$2', expected '$3'"; fi
}

# Waits up to 20 s until no process called NAME is left in this process namespace.
gone() { # NAME
    for _ in $(seq 200); do
        pgrep -x "$1" >/dev/null || return 0
        sleep 0.1
    done
    return 1
}
