#!/usr/bin/env python3
"""Part of scripts/bench: an image layer as a blob against squashfs and erofs, on the same tree.

blob.py DIR blob [--runs N] [--files N] [--only ROW,...] [--check]

Large files of a layer are materialised by the first who opens them, and stay: a row with "first" has none of them
before each sample, the others have those that an earlier reader left, as on a host that has run the image before.

DIR must be on a disk. Each sample of reading has a fresh mount and dropped caches; within a run every row goes over
all competitors, in an order that rotates. Nothing is pinned: a daemon and its client may use every processor.
"""
import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import time

import tree

CACHE_CAP = 64 << 20  # of the block cache of the daemon, its default
LARGE = 256 << 20
MANY = 100_000
READS = 2000
# To a pipe: tar reads nothing when it writes to the null device itself.
READ_ALL = 'tar cf - -C "$0" . | cat >/dev/null'
MODES = ["lamina", "squashfuse_ll", "erofsfuse", "squashfs", "erofs", "plain"]
IMPORTS = "asyncio, ctypes, decimal, email.message, http.client, json, logging, multiprocessing, sqlite3, ssl, " \
    "unittest, urllib.request, xml.etree.ElementTree, zipfile"
# Row, unit, the competitors that it is judged by and the greatest ratio to each.
READ_ROWS = {
    "find": ("ms", {"squashfuse_ll": 0.8}),
    "stat": ("ms", {"squashfuse_ll": 0.33}),
    "tar": ("ms", {"squashfuse_ll": 0.8, "squashfs": 1.0}),
    "tar again": ("ms", {"squashfuse_ll": 0.8, "squashfs": 1.0}),
    "random": ("us", {"plain": 1.15}),
    "import": ("ms", {"squashfuse_ll": 1.0}),
    "import again": ("ms", {"squashfuse_ll": 1.0}),
}
# Rows in which nothing is materialised yet.
FIRST = ("tar", "import")


def run(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def drop():
    """Empties the caches; the programs of the clients come back at once, since they are not what is measured."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    run("bash", "-c", "find /dev/null; tar --version; chroot --version; cat </dev/null")


class Bench:
    def __init__(self, base, args):
        self.base, self.runs, self.args = base, args.runs, args
        self.lamina = os.environ["lamina"]
        self.source, self.mnt = f"{base}/source", f"{base}/mnt"
        self.root = f"{base}/root"
        self.env = {**os.environ, "LAMINA_ROOT": self.root, "LAMINA_RUNTIME_DIR": f"{base}/run"}
        self.modes = [mode for mode in MODES if self.is_there(mode)]
        self.samples = {}

    @staticmethod
    def is_there(mode):
        if mode.endswith(("_ll", "fuse")):
            return shutil.which(mode) is not None
        return mode not in ("squashfs", "erofs") or f"\t{mode}\n" in open("/proc/filesystems").read()

    def wants(self, row):
        return not self.args.only or row in self.args.only.split(",")

    def note(self, row, mode, value):
        self.samples.setdefault(row, {}).setdefault(mode, []).append(value)

    def own(self, *command):
        run(self.lamina, *command, env=self.env)

    # Building.

    def cpu(self, *command):
        """User and system seconds of a command and of what it starts."""
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self.env)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"{command[0]} fails")
        return usage.ru_utime + usage.ru_stime

    def build(self, judged):
        """Builds the image of each format from files that are in the page cache."""
        run("bash", "-c", READ_ALL, self.source)
        squash, erofs = f"{self.base}/squashfs", f"{self.base}/erofs"
        makers = {
            "lamina": [self.lamina, "image", "import", self.source, "-t", "bench"],
            "squashfs": ["mksquashfs", self.source, squash, "-comp", "zstd", "-Xcompression-level", "3", "-b", "128K",
                         "-noappend", "-no-progress", "-quiet"],
        }
        for n in range(self.runs if judged else 1):
            for mode in list(makers)[::1 - n % 2 * 2]:
                shutil.rmtree(self.root, ignore_errors=True)
                start = time.perf_counter()
                self.note("build CPU", mode, self.cpu(*makers[mode]))
                self.note("build wall", mode, time.perf_counter() - start)
        self.own("image", "import", self.source, "-t", "bench")
        run("mkfs.erofs", "-zlz4", erofs, self.source)
        self.note("size", "lamina", used(f"{self.root}/layers") / 1e6)
        for mode, path in (("squashfs", squash), ("erofs", erofs)):
            self.note("size", mode, os.stat(path).st_size / 1e6)

    # Reading.

    def mount(self, mode, at=None, image="bench"):
        at = at or self.mnt
        os.makedirs(at, exist_ok=True)
        if mode == "lamina":
            self.own("mount", "--root", self.root, "--image", image, at)
        elif mode == "plain":
            run("mount", "--bind", self.source, at)
        elif mode in ("squashfuse_ll", "erofsfuse"):
            image = f"{self.base}/{'squashfs' if mode.startswith('s') else 'erofs'}"
            run(mode, image, at, stderr=subprocess.DEVNULL)  # erofsfuse tells what it does
        else:
            run("mount", "-t", mode, "-o", "loop,ro", f"{self.base}/{mode}", at)

    def umount(self, at=None):
        run("umount", at or self.mnt)

    def materialise(self):
        """Opens the large file until it is read from the host."""
        self.mount("lamina")
        for _ in range(300):
            with open(f"{self.mnt}/large", "rb") as file:
                file.read(1)
            found = [os.stat(f"{dir}/{name}").st_size for dir, _, names in os.walk(f"{self.root}/materials")
                     for name in names]
            if LARGE in found:
                break
            time.sleep(0.05)
        self.umount()

    def cold(self, row, mode):
        if mode == "lamina" and row in FIRST:
            shutil.rmtree(f"{self.root}/materials", ignore_errors=True)
        if mode == "lamina" and row == "random":
            self.materialise()
        drop()
        self.mount(mode)
        drop()
        try:
            start = time.perf_counter()
            value = getattr(self, f"row_{row.split()[0]}")()
            seconds = time.perf_counter() - start
            self.note(row, mode, seconds * 1e3 if value is None else value)
            if mode == "lamina" and row in ("stat", "tar", "tar again"):
                self.note("memory", mode, (anonymous() - CACHE_CAP) / 1e6)
        finally:
            self.umount()

    def row_find(self):
        run("find", f"{self.mnt}/tree")

    def row_stat(self):
        run("find", f"{self.mnt}/tree", "-printf", "%s %m %T@ %p\\n")

    def row_tar(self):
        run("bash", "-c", READ_ALL, f"{self.mnt}/tree")

    def row_random(self):
        rng = random.Random(3)
        places = [n * 4096 for n in rng.sample(range(LARGE // 4096), READS)]
        took = []
        file = os.open(f"{self.mnt}/large", os.O_RDONLY)
        for place in places:
            start = time.perf_counter_ns()
            data = os.pread(file, 4096, place)
            took.append(time.perf_counter_ns() - start)
            assert len(data) == 4096
        os.close(file)
        self.p50 = statistics.median(took) / 1000
        return statistics.mean(took) / 1000

    def row_import(self):
        run("chroot", f"{self.mnt}/debian", "/usr/bin/python3", "-c", f"import {IMPORTS}")

    def read(self):
        for n in range(self.runs):
            for row in filter(self.wants, READ_ROWS):
                turn = (n + len(row)) % len(self.modes)
                for mode in self.modes[turn:] + self.modes[:turn]:
                    self.cold(row, mode)
                    if row == "random":
                        self.note("random p50", mode, self.p50)

    def second_mount(self):
        """What a second mount of the layer adds to the page cache, in parts of a file that is read in both.

        The count is that of the host: others only add to it, so that the least of the runs is the best one.
        """
        other, found = f"{self.base}/mnt2", []
        self.materialise()
        for _ in range(self.runs):
            self.mount("lamina")
            self.mount("lamina", other)
            drop()
            run("cat", f"{self.mnt}/large")
            before = cached()
            run("cat", f"{other}/large")
            found.append(100 * (cached() - before) / LARGE)
            self.umount(other)
            self.umount()
        self.note("second", "lamina", min(found))

    def mounting(self):
        """How long a mount of a layer of 100,000 entries takes until the program has ended, and of one entry, less
        what it takes to start a program that does nothing."""
        for name, entries in (("many", MANY), ("one", 1)):
            tree.make_many(f"{self.base}/{name}", entries)
            self.own("image", "import", f"{self.base}/{name}", "-t", name)
            shutil.rmtree(f"{self.base}/{name}")
        for _ in range(5 * self.runs):
            start = time.perf_counter()
            run("/bin/true")
            spawn = time.perf_counter() - start
            for name in ("many", "one"):
                start = time.perf_counter()
                self.mount("lamina", image=name)
                self.note(f"mount {name}", "lamina", (time.perf_counter() - start - spawn) * 1e3)
                self.umount()


def used(path):
    return sum(os.stat(f"{dir}/{name}").st_size for dir, _, names in os.walk(path) for name in names)


def cached():
    fields = dict(line.split(":") for line in open("/proc/meminfo"))
    return int(fields["Cached"].split()[0]) * 1024


def anonymous():
    """RssAnon of the daemon; the process namespace has one only."""
    name = os.path.basename(os.environ["lamina"])[:15]  # as much as the kernel keeps of it
    pids = subprocess.run(["pgrep", "-x", name], check=True, capture_output=True, text=True).stdout.split()
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pids[0]}/status"))
    return int(fields["RssAnon"].split()[0]) * 1024


class Table:
    def __init__(self, bench):
        self.samples, self.missed = bench.samples, []
        self.modes = bench.modes
        print(f"| row | {' | '.join(self.modes)} | target | result |")
        print("| --- " * (len(self.modes) + 3) + "|")

    def median(self, row, mode):
        values = self.samples.get(row, {}).get(mode)
        return statistics.median(values) if values else None

    def line(self, label, row, target, found=None):
        """One line; `found` is a list of (text, whether the target is met)."""
        if row not in self.samples:
            return
        values = [self.median(row, mode) for mode in self.modes]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        verdict = "; ".join(text for text, _ in found or [])
        if found:
            is_met = all(met for _, met in found)
            verdict += " **pass**" if is_met else " **MISS**"
            self.missed += [] if is_met else [label]
        print(f"| {label} | {' | '.join(cells)} | {target} | {verdict} |")

    def ratios(self, label, row, limits):
        mine = self.median(row, "lamina")
        others = {mode: self.median(row, mode) for mode in limits}
        found = [(f"{mine / value:.2f} of {mode}", mine / value <= limits[mode])
                 for mode, value in others.items() if mine and value]
        target = ", ".join(f"<= {limit} of {mode}" for mode, limit in limits.items())
        self.line(label, row, target, found)

    def below(self, label, row, most, unit):
        value = self.median(row, "lamina")
        if value is not None:
            self.line(label, row, f"<= {most} {unit}", [(f"{value:.2f} {unit}", value <= most)])


LABELS = {"find": "cold find (names)", "stat": "cold find, stat of all", "tar": "cold tar, first",
          "tar again": "cold tar, later", "random": "4 KiB random cold reads, mean",
          "import": "cold python3 import, first", "import again": "cold python3 import, later"}


def show(bench):
    table = Table(bench)
    for row, (unit, limits) in READ_ROWS.items():
        table.ratios(f"{LABELS[row]}, {unit}", row, limits)
    table.line("4 KiB random cold reads, p50, us", "random p50", "")
    table.ratios("size, MB", "size", {"squashfs": 1.02})
    table.ratios("build CPU, s", "build CPU", {"squashfs": 1.0})
    table.line("build wall time, s", "build wall", "")
    table.below("page cache added by a second mount, % of the file", "second", 2, "%")
    table.below(f"mount of a layer of {MANY:,} entries, ms", "mount many", 5, "ms")
    table.line("mount of a layer of 1 entry, ms", "mount one", "")
    table.below("daemon memory over the cap of the cache, MB", "memory", 20, "MB")
    return table.missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("what", choices=["blob"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--only", help="rows: " + ", ".join([*READ_ROWS, "build", "second", "mount"]))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    bench = Bench(args.dir, args)
    total = tree.make(f"{bench.source}/tree", args.files)
    tree.make_large(f"{bench.source}/large", LARGE)
    run("cp", "-a", os.environ["debian"], f"{bench.source}/debian")
    bench.build(bench.wants("build"))
    bench.read()
    if bench.wants("second"):
        bench.second_mount()
    if bench.wants("mount"):
        bench.mounting()
    print(f"{args.files} files of {total / 1e9:.2f} GB and one of {LARGE >> 20} MiB; medians of {args.runs} runs; "
          f"daemons and clients on {os.cpu_count()} processors, not pinned")
    absent = [mode for mode in MODES if mode not in bench.modes]
    print(f"not on this machine: {', '.join(absent)}\n" if absent else "")
    missed = show(bench)
    if missed:
        print(f"\ntargets missed: {'; '.join(missed)}")
    return 1 if missed and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
