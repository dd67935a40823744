# Part of scripts/demo, sourced: the tree as an image, a container of it, and what becomes of its changes.
step "the same tree as an image of verified blobs, and a container of it that is changed and committed"
"$lamina" image import "$tree" -t demo >/dev/null
"$lamina" container create --name shown --volume data:/srv/data demo
place=$("$lamina" container start shown)
chroot "$place" /bin/sh -c 'cat /srv/data/file && rm -r /usr/share/doc && echo new >/etc/new'
"$lamina" container stop shown >/dev/null
"$lamina" image diff shown | tail -n 3
"$lamina" image commit shown -t demo:changed >/dev/null
"$lamina" image ls
"$lamina" container rm shown
