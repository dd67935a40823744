# Shared by the scripts that need users of their own: sourced after lib.sh, in an isolated script.

# Adds users to /etc/passwd and its kin as this mount namespace sees them, with 65,536 subordinate ids each.
own_users() { # NAME...
    local name id=60000 file
    for file in passwd group shadow subuid subgid; do
        touch "/etc/$file"
        cp -a "/etc/$file" "$scratch/$file"
    done
    for name in "$@"; do
        id=$((id + 1))
        for file in passwd group shadow subuid subgid; do
            sed -i "/^$name:/d" "$scratch/$file"
        done
        echo "$name:x:$id:$id::$scratch/home/$name:/bin/bash" >>"$scratch/passwd"
        echo "$name:x:$id:" >>"$scratch/group"
        echo "$name:*:19000::::::" >>"$scratch/shadow"
        echo "$name:$((id * 65536)):65536" | tee -a "$scratch/subuid" >>"$scratch/subgid"
        mkdir -p "$scratch/home/$name"
        chown "$id:$id" "$scratch/home/$name"
    done
    for file in passwd group shadow subuid subgid; do
        mount --bind "$scratch/$file" "/etc/$file"
    done
}
