# Writes the licences of the crates that the program is linked of, compressed, for the packages.
#   scripts/package.d/third-party.py FILE.gz
# Names, versions and expressions come from the metadata of cargo: the normal dependencies of the package `lamina` for
# this target. The texts are the files LICENSE*, COPYING* and NOTICE* in the sources of a crate, each text once.
import gzip
import json
import pathlib
import re
import subprocess
import sys

TARGET = "x86_64-unknown-linux-gnu"
NAMES = re.compile(r"(licen[cs]e|copying|notice|unlicense)([-._].*)?$", re.IGNORECASE)
LINE = "=" * 78


def crates(metadata):
    """The packages that `lamina` is linked of, without those of this repository."""
    packages = {one["id"]: one for one in metadata["packages"]}
    nodes = {one["id"]: one for one in metadata["resolve"]["nodes"]}
    left = [id for id in metadata["workspace_members"] if packages[id]["name"] == "lamina"]
    found = set()
    while left:
        id = left.pop()
        if id not in found:
            found.add(id)
            normal = [dep for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
            left.extend(dep["pkg"] for dep in normal)
    linked = [packages[id] for id in found if packages[id]["source"]]
    return sorted(linked, key=lambda one: (one["name"], one["version"]))


def texts(crate):
    """The texts in the sources of a crate, also those of the C libraries in it."""
    root = pathlib.Path(crate["manifest_path"]).parent
    files = sorted(path for path in root.rglob("*") if NAMES.match(path.name) and path.is_file())
    return [path.read_text(errors="replace").strip() for path in files if path.suffix not in (".rs", ".toml", ".c")]


def main():
    manifest = pathlib.Path(__file__).parents[2] / "Cargo.toml"
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    metadata = json.loads(subprocess.run([*command, "--manifest-path", manifest], check=True, stdout=subprocess.PIPE).stdout)
    numbers, rows = {}, []
    for crate in crates(metadata):
        own = sorted({numbers.setdefault(text, len(numbers) + 1) for text in texts(crate)})
        shown = ", ".join(map(str, own)) or "none in its sources"
        licence = crate["license"] or "see its text"
        rows.append(f"{crate['name']} {crate['version']}\n    licence: {licence}\n    texts: {shown}\n")
    parts = ["The crates that lamina is linked of beside the standard library of Rust, and their licences.\n", *rows]
    parts += [f"{LINE}\nText {number}\n{LINE}\n\n{text}\n" for text, number in numbers.items()]
    # Without name and time, so that equal inputs make equal files.
    data = gzip.compress("\n".join(parts).encode(), 9, mtime=0)
    pathlib.Path(sys.argv[1]).write_bytes(data)


main()
