#!/bin/bash
# podman with `force_mask`: owner and mode of every file stand in an attribute (`xattr_permissions=2`).
# Part of scripts/clients; leaves nothing.
. "$(dirname "$0")/../../scripts/clients.d/start.sh"
container_store "$lamina" runc enabled 'force_mask = "shared"'
engine() { podman "$@" </dev/null; }
# The engine itself cannot unpack a device in this form.
base_image --exclude './dev/*'
engine build -q --network none -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1 || fail force-mask::build "$(tail -n 3 "$scratch/build.log")"
# Nor does it keep set-id and sticky bits when it unpacks; what a container sets stays.
expected_image=${expected_image/6755/755}
judge force-mask::image "$(engine run --rm lamina/app sh -c "$judge_image" 2>&1)"
equal force-mask::shadow "$(engine run --rm lamina/app stat -c '%U:%G %a' /etc/shadow /etc/passwd | paste -sd' ')" \
    'root:shadow 640 root:root 644'
change='cp /bin/true /t && chown 5:6 /t && chmod 4755 /t && mknod /n c 1 3 && mkfifo /p && chmod 1777 /srv'
engine run --name changed lamina/app sh -c "$change" >"$scratch/change.log" 2>&1 || fail force-mask::change "$(tail -n 3 "$scratch/change.log")"
engine start -a changed >/dev/null 2>&1 || true # mknod refuses the second time; the mount is a new one
merged=$(engine mount changed)
equal force-mask::kept "$(cd "$merged" && stat -c '%F %u:%g %a' t n p srv | paste -sd,)" \
    'regular file 5:6 4755,character special file 0:0 644,fifo 0:0 644,directory 0:0 1777'
engine umount changed >/dev/null
equal force-mask::diff "$(engine diff changed | grep -E ' /(t|n|p|srv)$' | sort | paste -sd' ')" 'A /n A /p A /t C /srv'
engine rm changed >/dev/null
shadow=$(find "$store/graph/overlay" -path '*/diff/etc/shadow' | head -n 1)
equal force-mask::inode "$(stat -c %a "$shadow") $(getfattr --absolute-names --only-values -n user.containers.override_stat "$shadow" | cut -d: -f1-3)" \
    '755 0:42:0640'
no_rest force-mask
[ "$failed" = 0 ]
