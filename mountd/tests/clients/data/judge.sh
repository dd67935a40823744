# Runs in a container of the test image: prints one check of its layers a line, NAME and VALUE.
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
