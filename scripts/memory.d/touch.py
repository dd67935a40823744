#!/usr/bin/env python3
"""Part of scripts/memory: touch.py make|stat|open DIR COUNT, on COUNT files in directories of 1,000.

`make` makes them. `stat` looks at each. `open` opens and reads each, with the last 500 kept open, and writes to every
hundredth; any error stops it.
"""
import collections
import os
import sys

PER_DIR = 1000
HELD = 500


def paths(root, count):
    for n in range(count):
        yield n, f"{root}/{n // PER_DIR:04}/{n % PER_DIR:03}"


def make(root, count):
    for n, path in paths(root, count):
        if n % PER_DIR == 0:
            os.mkdir(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def stat(root, count):
    for _, path in paths(root, count):
        os.lstat(path)


def open_all(root, count):
    held = collections.deque()
    for n, path in paths(root, count):
        writes = n % 100 == 0
        held.append(os.open(path, os.O_RDWR if writes else os.O_RDONLY))
        if writes:
            os.pwrite(held[-1], b"written", 0)
        data = os.pread(held[-1], 16, 0)
        if data != (b"written" if writes else b""):
            sys.exit(f"{path}: {data!r}")
        if len(held) > HELD:
            os.close(held.popleft())


{"make": make, "stat": stat, "open": open_all}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
