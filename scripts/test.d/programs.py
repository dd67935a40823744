"""Prints the test programs of a build: NAME DIRECTORY PROGRAM. Reads the messages of `cargo test --no-run`."""

import json
import os
import sys

for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        directory = os.path.dirname(message["manifest_path"])
        print(message["target"]["name"], directory, message["executable"])
