# The tree in which scripts/newcomer plays, and the checks of the packages there: sourced by it, never run.

# Makes a system of the Debian tree at $root, with the package in /tmp.
make_tree() { # DEB
    cp "$1" "$root/tmp/lamina.deb"
    mount --bind "$root" "$root" # podman remounts its root
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs run "$root/run"
    cat /etc/resolv.conf >"$root/etc/resolv.conf"
    echo 'APT::Install-Recommends "0";' >"$root/etc/apt/apt.conf.d/readme"
}
in_tree() {
    chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# The packages themselves, on the host.
check_packages() { # DEB
    local list rpm
    rpm=$(ls "${1%/*}"/lamina-*.rpm)
    if lintian --allow-root --fail-on error "$1" >"$scratch/lintian" 2>&1; then
        equal package::lintian "$(cat "$scratch/lintian")" ""
    else
        fail package::lintian "$(grep -m 3 ^E: "$scratch/lintian" | tr '\n' ' ')"
    fi
    # Both hold what scripts/install installs; three places differ.
    list=$(dpkg-deb -c "$1" | awk '$1 !~ /^d/ { print substr($6, 2) }' |
        sed 's,zsh/vendor-completions,zsh/site-functions,' | grep -vE '^/usr/share/(lintian/|doc/)' | sort)
    equal package::rpm_files "$list" \
        "$(rpm -qpl "$rpm" | grep -vE '^/etc/lamina$|^/usr/share/(licenses|doc)/' | sort)"
    equal package::deb_third_party "$(third_party <(dpkg-deb --fsys-tarfile "$1"))" "fuser tokio"
    equal package::rpm_third_party "$(third_party <(rpm2archive -n - <"$rpm"))" "fuser tokio"
    equal package::rpm_config "$(rpm -qpc "$rpm")" /etc/lamina/lamina.toml
    equal package::rpm_keeps_data "$(rpm -qp --scripts "$rpm" | grep -c /var/lib)" 0
    equal package::rpm_scripts "$(rpm -qp --scripts "$rpm" | grep -c '^[a-z]* scriptlet')" 3
}

# The crates fuser and tokio, if the licences in a package name them and have a text.
third_party() { # TAR
    tar -xO ./usr/share/doc/lamina/THIRD-PARTY.gz <"$1" | zcat >"$scratch/third-party"
    grep -q 'Permission is hereby granted' "$scratch/third-party" &&
        grep -oE '^(fuser|tokio) [0-9]' "$scratch/third-party" | cut -d' ' -f1 | paste -sd' '
}

# What the installation of the package put into the tree.
check_installed() {
    local page helper
    equal package::version "$(in_tree lamina --version)" "$("$lamina" --version)"
    for page in lamina lamina-volume-create lamina-container-snapshot-ls mount.lamina umount.fuse.lamina; do
        if MANPAGER=cat man -M "$root/usr/share/man" "$page" 2>&1 | grep -q '^EXIT STATUS'; then
            pass "package::man_$page"
        else
            fail "package::man_$page" "no page with its exit status"
        fi
    done
    for helper in mount.lamina mount.fuse.lamina umount.lamina umount.fuse.lamina; do
        equal "package::$helper" "$(in_tree readlink -f "/sbin/$helper")" /usr/bin/lamina
    done
    # shellcheck disable=SC2016
    equal package::bash_completion "$(in_tree bash -c '. /usr/share/bash-completion/completions/lamina
        COMP_WORDS=(lamina volume cre) COMP_CWORD=2
        $(complete -p lamina | sed "s/.* -F \([^ ]*\) .*/\1/") lamina cre volume
        echo "${COMPREPLY[*]}"')" create
    cd "$root/usr/share"
    equal package::zsh_completion "$(head -n 1 zsh/vendor-completions/_lamina)" "#compdef lamina"
    equal package::fish_completion "$(grep -c -m 1 -- '-a "kubeconfig"' fish/vendor_completions.d/lamina.fish)" 1
    cd "$scratch"
    # The tree has no systemd, whose targets the units name.
    cp -n /usr/lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
    equal package::units "$(systemd-analyze verify --man=no --root="$root" lamina.service lamina-docker.socket \
        lamina-metrics.socket 2>&1)" ""
}

# Removes the package in every way. The volume `data` is that of the session.
check_removal() {
    local kept=$root/var/lib/lamina/volumes/data/_data/file
    in_tree apt-get remove -y -q lamina >/dev/null 2>&1
    equal package::removed "$(find "$root"/usr/bin/lamina "$root"/usr/sbin/*mount*lamina 2>/dev/null)" ""
    equal package::remove_keeps_data "$(cat "$kept")" kept
    equal package::remove_keeps_configuration "$(find "$root/etc/lamina" -type f)" "$root/etc/lamina/lamina.toml"
    purge keeps_data_without_an_answer kept
    equal package::purge_removes_configuration "$(find "$root/etc/lamina" 2>/dev/null)" ""
    in_tree sh -c "echo lamina lamina/purge-data boolean true | debconf-set-selections"
    mount --bind "$root/srv" "$root/var/lib/lamina/volumes"
    purge under_a_mount ""
    umount "$root/var/lib/lamina/volumes"
    equal package::purge_keeps_data_of_mounts "$(cat "$kept")" kept
    purge asks_and_takes_no kept no
    purge asks_and_takes_yes "" yes
    equal package::data_is_gone "$(find "$root/var/lib/lamina" 2>/dev/null)" ""
}

# Purges the package, at a terminal where an answer is given; it is installed first where it is not.
purge() { # NAME CONTENT [ANSWER]
    local frontend=noninteractive
    [ -e "$root/usr/bin/lamina" ] || in_tree dpkg -i /tmp/lamina.deb >/dev/null 2>&1
    if [ $# = 3 ]; then
        frontend=teletype
    fi
    printf '%s\n' "${3:-}" | script -qec "chroot '$root' /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
        DEBIAN_FRONTEND=$frontend dpkg --purge lamina" /dev/null >"$scratch/purge" 2>&1
    [ $# = 2 ] || equal "package::purge_$1::question" "$(grep -c 'Remove all images' "$scratch/purge")" 1
    equal "package::purge_$1" "$(cat "$root/var/lib/lamina/volumes/data/_data/file" 2>/dev/null)" "$2"
}
