#!/usr/bin/env python3
"""Part of scripts/bench: mounts, runs the client, prints medians.

run.py DIR meta|data [--runs N] [--against BINARY] [--check] [--json FILE]
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys

import chart

MODES = ["ours", "kernel", "fuse-overlayfs", "plain"]
MODES_SHOWN = ["plain", "kernel", "fuse-overlayfs", "ours"]
NOISE = 1.10
EARLIER_NOISE = 1.05


def fill(lower, what):
    """Makes the lower layer that the client wants."""
    def put(path, size):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for _ in range(max(1, size >> 20)):
                file.write(os.urandom(min(size, 1 << 20)))
    if what == "meta":
        for d in range(20):
            for f in range(250):
                put(f"{lower}/tree/d{d:02}/f{f:03}", 4096)
        for n in range(10_000):
            put(f"{lower}/big/{n:05}", 1)
    else:
        put(f"{lower}/large", 256 << 20)
        put(f"{lower}/large2", 256 << 20)
        for n in range(500):
            put(f"{lower}/small/{n:03}", 4096)


def sample(base, mode, what, against):
    """One fresh mount, one run of the client: nanoseconds of each operation."""
    kind, binary = ("ours", against) if mode == "earlier" else (mode, os.environ["lamina"])
    script = f'. "$repo/scripts/lib.sh"; union_mount {kind} "{base}"'
    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "LAMINA_BIN": binary})
    try:
        out = subprocess.run([os.environ["ops"], what, f"{base}/mnt"], check=True, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", f"{base}/mnt"], check=True)
    return {name: int(nanos) for name, nanos in (line.split() for line in out.stdout.splitlines())}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("what", choices=["meta", "data"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--against", metavar="BINARY", help="an earlier lamina to compare with in the same run")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="add the ratios to a file, of which `scripts/bench chart` draws")
    args = parser.parse_args()
    modes = MODES + (["earlier"] if args.against else [])
    times = {}
    template = f"{args.dir}/template"
    fill(template, args.what)
    for run in range(args.runs):
        for mode in modes[run % len(modes):] + modes[:run % len(modes)]:
            base = f"{args.dir}/{mode}"
            shutil.copytree(template, f"{base}/lower")
            for name, nanos in sample(base, mode, args.what, args.against).items():
                times.setdefault(name, {}).setdefault(mode, []).append(nanos)
            shutil.rmtree(base)
    slow, ratios = [], {}
    print(f"medians of {args.runs} runs, microseconds per operation\n")
    earlier = ["ours / earlier"] if args.against else []
    heads = ["operation", "plain", "kernel", "fuse-overlayfs", "ours", "ours / fuse-overlayfs", "ours / kernel", *earlier]
    print(f"| {' | '.join(heads)} |")
    print(f"|{' --- |' * len(heads)}")
    for name, by_mode in times.items():
        median = {mode: statistics.median(values) / 1000 for mode, values in by_mode.items()}
        ratios[name] = {mode: round(median["plain"] / median[mode], 3) for mode in MODES_SHOWN}
        ratio = median["ours"] / median["fuse-overlayfs"]
        cells = [name, *(f"{median[mode]:.2f}" for mode in MODES_SHOWN)]
        cells += [f"{ratio:.2f}", f"{median['ours'] / median['kernel']:.2f}"]
        if ratio > NOISE:
            slow.append(f"{name} than fuse-overlayfs")
        if args.against:
            change = median["ours"] / median["earlier"]
            cells.append(f"{change:.2f}")
            if change > EARLIER_NOISE:
                slow.append(f"{name} than before")
        print(f"| {' | '.join(cells)} |")
    if args.json:
        chart.add(args.json, args.what, ratios)
    if slow:
        print(f"\nslower: {', '.join(slow)}")
    return 1 if slow and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
