# Shared by tests/clients: sourced after place.sh. An image of several layers, and what must be in it.
# The caller defines `engine`, a function that runs podman or docker with its arguments.

# Imports the Debian tree as lamina/base and writes the build context into $scratch/context.
base_image() { # [OPTION-OF-TAR...]
    mkdir -p "$scratch/context"
    tar -C "$("$repo/scripts/debian-tree")" --exclude ./var/lib/apt/lists --exclude ./usr/share/locale "$@" \
        -cf "$scratch/base.tar" .
    engine import "$scratch/base.tar" lamina/base >"$scratch/import.log" 2>&1 || cat "$scratch/import.log"
    rm "$scratch/base.tar"
    cat >"$scratch/context/Dockerfile" <<'END'
FROM lamina/base
RUN mkdir -p /seed/sub /ren/inner /links /multi/deep && echo one >/seed/old && echo two >/seed/sub/older \
 && echo data >/links/a && ln /links/a /links/b && echo r >/ren/inner/file && echo gone >/gone && echo m >/multi/deep/f
RUN rm /gone && echo x >/kept
RUN rm -rf /seed && mkdir /seed && echo new >/seed/new
RUN mv /ren /renamed && echo more >/renamed/inner/more
RUN echo changed >>/links/b && ln /links/a /links/c
RUN rm -rf /usr/share/doc /multi && mkdir -p /usr/share/doc /multi/deep
RUN chown 7:8 /kept && chmod 6755 /kept && touch -d '2001-02-03 04:05:06' /seed/new && chmod 0 /etc/issue
COPY Dockerfile /seed/
END
}

# An image as people have them, lamina/app: Debian, a layer in which apt installs Python, and layers that delete, rename
# and replace. Needs the Debian mirror.
real_image() {
    base_image
    sed -i '1a RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*' \
        "$scratch/context/Dockerfile"
    sed -i 's|ln /links/a /links/c$|& \&\& mkdir /private \&\& ln /links/a /private/e \&\& chown 9:9 /private \&\& chmod 1731 /private|' \
        "$scratch/context/Dockerfile"
    engine build -q --layers --network host -t lamina/app "$scratch/context" >"$scratch/build.log" 2>&1
}

# What a shell in a container of the image prints, one check a line: NAME VALUE.
judge_image='
say() { printf "%s %s\n" "$1" "$(echo $2)"; }
say listing "$(ls -A /seed)"
say old "$(cat /seed/old /seed/sub/older 2>/dev/null)"
say gone "$(ls -d /gone /ren 2>/dev/null)"
say renamed "$(cat /renamed/inner/file /renamed/inner/more)"
say links "$(stat -c %h /links/a) $(stat -c %i /links/a /links/b /links/c | sort -u | wc -l) $(cat /links/c)"
say doc "$(ls -A /usr/share/doc)"
say multi "$(find /multi)"
say kept "$(stat -c "%u:%g %a" /kept) $(cat /kept)"
say times "$(stat -c %Y /seed/new) $(stat -c %a /etc/issue)"
say hidden "$(find / -xdev -name ".wh.*" 2>/dev/null)"
'
expected_image='listing Dockerfile new
old 
gone 
renamed r more
links 3 1 data changed
doc 
multi /multi /multi/deep
kept 7:8 6755 x
times 981173106 0
hidden '

# Compares what judge_image printed, line for line.
judge() { # PREFIX TEXT
    local line
    while IFS= read -r line; do
        equal "$1::${line%% *}" "$(grep "^${line%% *} " <<<"$2" || true)" "$line"
    done <<<"$expected_image"
}
