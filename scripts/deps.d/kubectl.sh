#!/bin/bash
# Puts the kubectl of Debian, which is of version 1.20, into target/tools: the tests run it beside the installed one.
. "$(dirname "$0")/../lib.sh"
[ ! -x "$tools/bin/kubectl-1.20" ] || exit 0
package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
cd "$package"
apt-get download -qq kubernetes-client 2>/dev/null || { apt-get update -qq && apt-get download -qq kubernetes-client; }
dpkg -x kubernetes-client_*.deb .
install -D usr/bin/kubectl "$tools/bin/kubectl-1.20"
