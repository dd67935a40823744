"""Snapshots, clones and rollbacks of a volume of many files while fio writes to it.

Compared are the driver `union`, snapshots of btrfs, and `cp --reflink` on xfs, each in a loop image of its own. Every
round takes one snapshot of each, in an order that rotates. The time is that of the command, with the start of its
process. After the rounds one snapshot of each is compared with what was written before, file by file, and writes to the
volume and to a clone are looked for in the other.
"""

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import time


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Place:
    """A file system in a loop image, with a volume of one kind."""

    file_system = "ext4"

    def __init__(self, args, name):
        self.name = name
        self.at = f"{args.scratch}/{name}"
        os.makedirs(self.at)
        image = f"{self.at}.img"
        with open(image, "wb") as file:
            file.truncate(args.room)
        run(f"mkfs.{self.file_system}", "-q", image)
        run("mount", "-o", "loop,noatime", image, self.at)
        self.image = image

    def used(self):
        run("sync", "-f", self.at)
        found = os.statvfs(self.at)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def end(self):
        run("umount", self.at)
        os.remove(self.image)


class Lamina(Place):
    """A volume of Lamina; its content is bound to a mount of an empty union."""

    def __init__(self, args, name, driver, options=(), file_system="ext4"):
        self.file_system = file_system
        super().__init__(args, name)
        self.root, self.runtime = f"{self.at}/root", f"{args.scratch}/run"
        os.mkdir(self.root)
        self.call("volume", "create", "--driver", driver, *options, "v")
        self.users = {}
        self.data = self.use("v")

    def call(self, *words):
        environment = {**os.environ, "LAMINA_ROOT": self.root, "LAMINA_RUNTIME_DIR": self.runtime}
        return run(os.environ["lamina"], *words, env=environment)

    def use(self, volume):
        """Mounts a volume as a container has it."""
        target = f"{self.at}/use-{volume}"
        os.makedirs(f"{target}/lower")
        os.makedirs(f"{target}/mnt")
        self.call("mount", "--lower", f"{target}/lower", "--ephemeral", "--volume", f"{volume}:/v", f"{target}/mnt")
        self.users[volume] = target
        return f"{target}/mnt/v"

    def leave(self, volume):
        target = self.users.pop(volume)
        self.call("umount", f"{target}/mnt")
        shutil.rmtree(target)

    def snapshot(self, name):
        self.call("volume", "snapshot", "create", "v", name)

    def clone(self, snapshot, name):
        self.call("volume", "clone", f"v@{snapshot}", name)

    def show(self, clone):
        return self.use(clone)

    def roll_back(self, snapshot):
        self.leave("v")
        begun = time.monotonic()
        self.call("volume", "rollback", "v", snapshot)
        taken = time.monotonic() - begun
        self.data = self.use("v")
        return taken

    def end(self):
        for volume in list(self.users):
            self.leave(volume)
        self.call("volume", "prune", "--all")
        super().end()


class Copied(Place):
    """A directory, and whole copies of it beside."""

    def __init__(self, args, name):
        super().__init__(args, name)
        self.data = f"{self.at}/v"
        self.make()

    def snapshot(self, name):
        self.copy(self.data, f"{self.at}/{name}", "-r")

    def clone(self, snapshot, name):
        self.copy(f"{self.at}/{snapshot}", f"{self.at}/{name}")

    def show(self, clone):
        return f"{self.at}/{clone}"

    def roll_back(self, snapshot):
        begun = time.monotonic()
        os.rename(self.data, f"{self.at}/old")
        self.clone(snapshot, "v")
        return time.monotonic() - begun


class Btrfs(Copied):
    """A subvolume of btrfs."""

    file_system = "btrfs"

    def make(self):
        run("btrfs", "subvolume", "create", self.data)

    def copy(self, source, copy, *words):
        run("btrfs", "subvolume", "snapshot", *words, source, copy)


class Reflink(Copied):
    """A directory of xfs, copied by `cp --reflink`: not one moment while somebody writes."""

    file_system = "xfs"

    def make(self):
        os.mkdir(self.data)

    def copy(self, source, copy, *_):
        run("cp", "-a", "--reflink=always", source, copy)


def fill(args, data):
    """Many files of the same total size, and one that fio writes to."""
    block = os.urandom(1 << 20)
    size = args.bytes // args.files
    for number in range(args.files):
        directory = f"{data}/{number // 1000}"
        if number % 1000 == 0:
            os.mkdir(directory)
        with open(f"{directory}/{number}", "wb") as file:
            left = size
            file.write(number.to_bytes(8, "little"))
            while left > 0:
                file.write(block[:left])
                left -= len(block)
    with open(f"{data}/fio", "wb") as file:
        for _ in range(args.hot >> 20):
            file.write(block)
    run("sync", "-f", data)


def write_on(args, place):
    """fio, until it is ended."""
    words = ["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--time_based", "--runtime=3600", "--fallocate=none"]
    words += [f"--filename={place.data}/fio", f"--size={args.hot}", f"--rate_iops={args.rate}"]
    return subprocess.Popen(["fio", "--name=x", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(act, *words):
    begun = time.monotonic()
    act(*words)
    return time.monotonic() - begun


def differences(left, right):
    """The paths that differ between two trees, but for the file that fio writes."""
    found = []
    for base, directories, files in os.walk(left):
        other = base.replace(left, right, 1)
        if sorted(directories + files) != sorted(os.listdir(other)):
            found.append(base)
        _, wrong, broken = filecmp.cmpfiles(base, other, [name for name in files if name != "fio"], shallow=False)
        found += wrong + broken
    return found


def prove(place):
    """Whether a snapshot has what was written before it, and later writes stay on their side."""
    place.clone("s0", "proof")
    shown = place.show("proof")
    wrong = differences(shown, place.data)
    with open(f"{place.data}/0/0", "r+b") as file:
        file.write(b"of the volume")
    with open(f"{shown}/0/1", "r+b") as file:
        file.write(b"of the clone")
    with open(f"{shown}/0/0", "rb") as file:
        wrong += ["0/0"] if file.read(13) == b"of the volume" else []
    with open(f"{place.data}/0/1", "rb") as file:
        wrong += ["0/1"] if file.read(12) == b"of the clone" else []
    return wrong


def measure(args, places):
    figures = {place.name: {"snapshot": [], "clone": []} for place in places}
    writers = [write_on(args, place) for place in places]
    try:
        time.sleep(1)
        for turn in range(args.runs):
            print(f"round {turn + 1} of {args.runs}", file=sys.stderr)
            for place in places[turn % len(places):] + places[:turn % len(places)]:
                rows = figures[place.name]
                rows["snapshot"].append(timed(place.snapshot, f"s{turn}"))
                rows["clone"].append(timed(place.clone, f"s{turn}", f"c{turn}"))
    finally:
        for writer in writers:
            writer.terminate()
            writer.wait()
    for place in places:
        rows = figures[place.name]
        before = place.used()
        place.snapshot("idle")
        rows["added"] = place.used() - before
        rows["differ"] = len(prove(place))
        rows["rollback"] = place.roll_back("s0")
    return figures


def show(args, figures):
    gigabytes = args.bytes / (1 << 30)
    print(f"{gigabytes:.1f} GiB in {args.files} files, {args.runs} rounds, {args.rate} writes of 4 KiB a second")
    print(f"{'':14}  {'snapshot':>10}  {'slowest':>10}  {'clone':>10}  {'rollback':>10}  {'added':>10}  {'differ':>6}")
    for name, rows in figures.items():
        snapshot, clone = statistics.median(rows["snapshot"]), statistics.median(rows["clone"])
        print(f"{name:14}  {snapshot * 1000:7.0f} ms  {max(rows['snapshot']) * 1000:7.0f} ms  {clone * 1000:7.0f} ms  "
              f"{rows['rollback'] * 1000:7.0f} ms  {rows['added'] >> 10:6} KiB  {rows['differ']:>6}")
    print(json.dumps(figures), file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench snapshot")
    parser.add_argument("scratch")
    parser.add_argument("what")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=10 << 30, help="of all files")
    parser.add_argument("--hot", type=int, default=64 << 20, help="of the file that fio writes to")
    parser.add_argument("--rate", type=int, default=200, help="blocks of 4 KiB that fio writes in a second")
    parser.add_argument("--only", help="names of places, separated by commas")
    args = parser.parse_args()
    args.room = args.bytes * 2 + args.hot * (args.runs + 4) + (1 << 30)
    return args


def main():
    args = arguments()
    kinds = {
        "union on ext4": lambda name: Lamina(args, name, "union"),
        "union on xfs": lambda name: Lamina(args, name, "union", file_system="xfs"),
        "btrfs": lambda name: Btrfs(args, name),
        "xfs reflink": lambda name: Reflink(args, name),
    }
    wanted = args.only.split(",") if args.only else list(kinds)
    places = []
    try:
        for name in wanted:
            places.append(kinds[name](name))
            print(f"filling {name}", file=sys.stderr)
            fill(args, places[-1].data)
        figures = measure(args, places)
    finally:
        for place in places:
            place.end()
    show(args, figures)


main()
