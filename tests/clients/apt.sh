#!/bin/bash
# A Debian tree lived in: two apt-get install side by side inside chroot while tar reads the tree and cp copies parts of
# it, dpkg --verify, the lower untouched, the same files after a remount and under the kernel's overlayfs. Needs the Debian mirror. Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
packages=${LAMINA_APT_PACKAGES:-gcc libc6-dev git}
base=$scratch/union
mkdir -p "$base/lower" "$base/upper" "$base/work" "$base/mnt"
mount --bind "$("$repo/scripts/debian-tree")" "$base/lower"
tree_hash() { "$repo/scripts/clients.d/tree-hash" "$1"; }

before=$(tree_hash "$base/lower")
union_mount ours "$base"
for file in /etc/resolv.conf /etc/hosts; do cat $file >"$base/mnt$file"; done
mount -t proc proc "$base/mnt/proc"
in_tree() { chroot "$base/mnt" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }
install() { # LOG PACKAGE...
    local log=$1
    shift
    in_tree apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o APT::Get::Lock-Timeout=300 "$@" >"$log" 2>&1
}
# Readers go on until the file is there.
readers() {
    local copy=0
    while [ ! -e "$scratch/installed" ]; do
        tar -C "$base/mnt" -cf - usr/lib usr/share var/lib/dpkg 2>>"$scratch/readers.log" | tail -c 1 >/dev/null || true
        copy=$((copy + 1))
        cp -a "$base/mnt/usr/share/zoneinfo" "$base/mnt/srv/copy$copy" 2>>"$scratch/readers.log" || true
    done
}
in_tree apt-get update -qq >"$scratch/update.log" 2>&1 || fail apt::update "$(tail -n 5 "$scratch/update.log")"
readers &
readers=$!
install "$scratch/other.log" hello &
other=$!
install "$scratch/apt.log" $packages && pass apt::install || fail apt::install "$(tail -n 5 "$scratch/apt.log")"
wait "$other" && pass apt::install_beside || fail apt::install_beside "$(tail -n 5 "$scratch/other.log")"
: >"$scratch/installed"
wait "$readers" || true
bad=$(grep -vE 'file changed as we read it|File removed before we read it|No such file or directory|socket ignored' "$scratch/readers.log" || true)
equal apt::readers_beside "$bad" ""
equal apt::copies "$(for copy in "$base"/mnt/srv/copy*; do diff -r "$base/lower/usr/share/zoneinfo" "$copy" 2>&1 | grep -v '^Only in .*/copy' | head -n 3; done)" ""
equal apt::dpkg_verify "$(in_tree dpkg --verify 2>&1)" ""
equal apt::dpkg_audit "$(in_tree dpkg --audit 2>&1)" ""
printf 'int main(void) { return 42; }\n' >"$base/mnt/tmp/a.c"
in_tree sh -c 'gcc -o /tmp/a /tmp/a.c; /tmp/a; echo $?' >"$scratch/gcc" 2>&1 || true
equal apt::compiles "$(cat "$scratch/gcc")" 42
in_tree sh -c 'git init -q /tmp/r && cd /tmp/r && git add . && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git fsck' >"$scratch/git" 2>&1 && pass apt::git || fail apt::git "$(cat "$scratch/git")"
umount "$base/mnt/proc"
lived=$(tree_hash "$base/mnt")
umount "$base/mnt"
equal apt::lower_untouched "$(tree_hash "$base/lower")" "$before"
union_mount ours "$base"
equal apt::after_remount "$(tree_hash "$base/mnt")" "$lived"
umount "$base/mnt"
if gone "$program"; then pass apt::daemon_leaves; else fail apt::daemon_leaves "still there"; fi
mount -t overlay -o "lowerdir=$base/lower,upperdir=$base/upper,workdir=$base/work,metacopy=on,redirect_dir=on,index=on" overlay "$base/mnt"
equal apt::under_kernel_overlayfs "$(tree_hash "$base/mnt")" "$lived"
umount "$base/mnt"
[ "$failed" = 0 ]
