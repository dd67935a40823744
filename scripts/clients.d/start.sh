# Sourced first by each of tests/clients/*.sh: everything they share, and an isolated $scratch.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
. "$repo/scripts/users.sh"
. "$repo/scripts/clients.d/place.sh"
. "$repo/scripts/clients.d/build.sh"
. "$repo/scripts/clients.d/use.sh"
isolate "$@"
make_scratch
build
program=$(basename "$lamina")
