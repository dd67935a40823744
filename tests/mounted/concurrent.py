#!/usr/bin/env python3
"""Several processes on few names of one mount, and a judgement of what they were answered.

    concurrent.py run --judge plain|kernel|lamina [--seconds 20] [--processes 8] [--seed 1]
                      [--options OPTIONS] [--directory DIR | --place DIR] [--no-reclaim]
    concurrent.py figures --judge plain|kernel|lamina [--files 300]
    concurrent.py listings --judge plain|kernel|lamina [--seconds 20] [--processes 8]

Needs root and a mount namespace of its own; LAMINA_BIN names the program. `run` prints one line
(operations, records, errors) and ends with 1 if no order explains what was seen. What is checked:

- a record that was appended is there once and unbroken, and those of a writer are in order;
- a block that one process owns holds what it wrote last, at once, at the end, and after a remount;
- who reads a file that is replaced by rename sees one version as a whole;
- the names that one process owns in a shared directory are those that it left, in each listing;
- a mode and an attribute set by their only writer are the last ones;
- a file has as many links as names; no call ends with EIO, ESTALE, ENOTCONN or any other surprise;
- the tree after a remount is the tree before it, and what the upper holds is what the mount showed.

`figures` counts what is lost of a few races that once lost most: two openers, two appenders, a
chmod beside an append, and appenders of one large file. `listings` has processes list a directory
that all of them change.
"""

import argparse
import collections
import errno
import hashlib
import mmap
import os
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

BLOCK = 4096
RECORD = 64
LAMINA = os.environ.get("LAMINA_BIN", "lamina")
# Sizes of the lower files that are appended to.
APPENDED = {"a-empty": 0, "a-small": 700, "a-middle": 300 << 10, "a-large": 1 << 20, "a-huge": 64 << 20}
BLOCKS = {"b-small": 8, "b-middle": 300 << 10, "b-large": 8 << 20}
REPLACED = {"r-small": 100, "r-large": 200 << 10}
SHARED = ["s", "s/t"]


def pattern(name, size):
    line = hashlib.sha256(name.encode()).hexdigest().encode()
    return (line * (size // len(line) + 1))[:size]


class Mount:
    """A judge: a plain directory, the kernel's overlayfs or lamina over a lower and an upper."""

    def __init__(self, judge, base, options):
        self.judge, self.base, self.options = judge, base, options
        for name in ("l", "u", "w", "m"):
            os.mkdir(f"{base}/{name}")
        self.top = f"{base}/m"
        self.lower = self.top if judge == "plain" else f"{base}/l"

    def mount(self):
        layers = f"lowerdir={self.base}/l,upperdir={self.base}/u,workdir={self.base}/w"
        if self.judge == "kernel":
            options = f"{layers},metacopy=on,redirect_dir=on,index=on,xino=on"
            subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.top], check=True)
        elif self.judge == "lamina":
            words = [LAMINA, "mount", "--lower", f"{self.base}/l", "--upper", f"{self.base}/u"]
            words += ["--work", f"{self.base}/w"] + (["-o", self.options] if self.options else [])
            subprocess.run(words + [self.top], check=True, timeout=60)

    def unmount(self):
        if self.judge == "plain":
            return
        for _ in range(100):
            if subprocess.run(["umount", self.top], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"cannot unmount {self.top}")


def make_version(number, size):
    head = b"%08d %08d " % (number, size)
    body = hashlib.sha256(head).digest() * (size // 32 + 1)
    return head + body[:size]


def whole(data):
    """The number of the version that the bytes are as a whole, or None."""
    try:
        number, size = int(data[:8]), int(data[9:17])
    except ValueError:
        return None
    return number if data == make_version(number, size) else None


def fill(lower, linked):
    os.umask(0o022)
    for place in SHARED:
        os.mkdir(f"{lower}/{place}")
        for number in range(20):
            with open(f"{lower}/{place}/lower{number}", "wb") as file:
                file.write(pattern(place, 100 * number))
    for name, size in {**APPENDED, **BLOCKS}.items():
        with open(f"{lower}/{name}", "wb") as file:
            file.write(pattern(name, size))
    for name, size in REPLACED.items():
        with open(f"{lower}/{name}", "wb") as file:
            file.write(make_version(0, size))
    # Files with several lower names, which only an index keeps together.
    if linked:
        os.link(f"{lower}/b-small", f"{lower}/s/b-small-too")
        os.link(f"{lower}/a-middle", f"{lower}/s/a-middle-too")


class Worker:
    """One process. What it was answered is kept for the judgement."""

    def __init__(self, number, count, top, seed):
        self.number, self.count, self.top = number, count, top
        self.random = random.Random(f"{seed} {number}")
        self.sequence = collections.Counter()
        self.acknowledged = collections.defaultdict(list)
        self.maybe = []
        self.blocks = {}
        self.names = {place: {} for place in SHARED}
        self.modes = {}
        self.errors = []
        self.counts = collections.Counter()
        self.links = []

    def error(self, text):
        if len(self.errors) < 20:
            self.errors.append(f"process {self.number}: {text}")
        self.counts["errors"] += 1

    def path(self, name):
        return f"{self.top}/{name}"

    # An appended file is renamed by others, to and fro.
    def any_name(self, name):
        return self.path(self.random.choice([name, f"{name}.moved"]))

    def append(self):
        name = self.random.choice(list(APPENDED))
        file = os.open(self.any_name(name), os.O_WRONLY | os.O_APPEND)
        try:
            for _ in range(self.random.choice([1, 1, 1, 5])):
                number = self.sequence[name]
                head = b"\n%02d %010d %s " % (self.number, number, name.encode())
                record = head + hashlib.sha256(head).hexdigest().encode()
                record = record[:RECORD].ljust(RECORD, b".")
                self.sequence[name] += 1
                if os.write(file, record) != RECORD:
                    self.error(f"a short append to {name}")
                self.acknowledged[name].append(number)
            if self.random.random() < 0.2:
                os.fsync(file)
        finally:
            os.close(file)

    def block(self):
        name = self.random.choice(list(BLOCKS))
        flags = self.random.choice([os.O_WRONLY, os.O_RDWR])
        file = os.open(self.path(name), flags)
        try:
            old = self.blocks.get(name)
            if flags == os.O_RDWR and old is not None:
                if os.pread(file, BLOCK, self.number * BLOCK) != old:
                    self.error(f"a block of {name} is not what was written")
            data = os.urandom(16) * (BLOCK // 16)
            self.blocks[name] = None
            if os.pwrite(file, data, self.number * BLOCK) != BLOCK:
                self.error(f"a short write to {name}")
            self.blocks[name] = data
            if self.random.random() < 0.2:
                os.fsync(file)
        finally:
            os.close(file)

    def replace(self):
        name = self.random.choice(list(REPLACED))
        size = self.random.choice([0, 100, 5000, 70_000, 300 << 10])
        number = self.sequence["version"] * 100 + self.number + 1
        self.sequence["version"] += 1
        temporary = self.path(f"{name}.new{self.number}")
        with open(temporary, "wb") as file:
            file.write(make_version(number, size))
        os.rename(temporary, self.path(name))

    def read(self):
        name = self.random.choice(list(REPLACED))
        with open(self.path(name), "rb") as file:
            data = file.read()
        if whole(data) is None:
            self.error(f"a torn version of {name}: {len(data)} bytes, {data[:20]!r}")

    def move(self):
        name = self.random.choice(["a-small", "a-middle"])
        names = [self.path(name), self.path(f"{name}.moved")]
        self.random.shuffle(names)
        os.rename(names[0], names[1])

    # The mode and the attribute of a file have one writer each.
    def attributes(self):
        names = [*APPENDED, *BLOCKS]
        own = [name for at, name in enumerate(names) if at % self.count == self.number]
        if not own:
            return
        name = self.random.choice(own)
        path = self.any_name(name) if name in APPENDED else self.path(name)
        mode = self.random.choice([0o600, 0o640, 0o644, 0o660])
        os.chmod(path, mode)
        self.modes[name] = [mode, None]
        value = b"%d" % self.random.randrange(1000)
        os.setxattr(path, "user.own", value)
        self.modes[name][1] = value

    def link(self):
        if self.links and self.random.random() < 0.6:
            os.unlink(self.links.pop())
            return
        name = self.random.choice([*BLOCKS, "a-large"])
        new = self.path(f"s/link{self.number}-{self.sequence['link']}")
        self.sequence["link"] += 1
        os.link(self.path(name), new)
        self.links.append(new)

    # Names that are this process's own, in directories that all share.
    def own(self):
        place = self.random.choice(SHARED)
        names = self.names[place]
        act = self.random.random()
        if names and act < 0.3:
            os.unlink(self.path(f"{place}/{self.take(names)}"))
        elif names and act < 0.5:
            old = self.random.choice(list(names))
            to = self.random.choice(SHARED)
            new = self.fresh()
            data = names[old]
            os.rename(self.path(f"{place}/{old}"), self.path(f"{to}/{new}"))
            del names[old]
            self.names[to][new] = data
        elif names and act < 0.7:
            name = self.random.choice(list(names))
            with open(self.path(f"{place}/{name}"), "rb") as file:
                if file.read() != names[name]:
                    self.error(f"{place}/{name} is not what was written")
        else:
            name = self.fresh()
            data = os.urandom(self.random.choice([0, 10, 5000]))
            file = os.open(self.path(f"{place}/{name}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            try:
                if data and os.write(file, data) != len(data):
                    self.error("a short write")
            finally:
                os.close(file)
            names[name] = data

    def fresh(self):
        self.sequence["name"] += 1
        return f"own{self.number}-{self.sequence['name']}"

    def take(self, names):
        name = self.random.choice(list(names))
        del names[name]
        return name

    def list(self):
        place = self.random.choice(SHARED)
        seen = [name for name in os.listdir(self.path(place)) if name.startswith(f"own{self.number}-")]
        if sorted(seen) != sorted(self.names[place]):
            counts = collections.Counter(seen)
            counts.subtract(self.names[place].keys())
            wrong = {name: count for name, count in counts.items() if count}
            self.error(f"a listing of {place} shows too few or too many of {wrong}")

    def directory(self):
        path = self.path(f"s/dir{self.number}")
        os.mkdir(path)
        open(f"{path}/in", "wb").close()
        os.rename(path, path + "x")
        os.unlink(f"{path}x/in")
        os.rmdir(path + "x")

    def held(self):
        """A file that is removed while it is open stays as it is."""
        path = self.path(f"s/held{self.number}")
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            os.write(file, b"held")
            os.unlink(path)
            if os.pread(file, 9, 0) != b"held" or os.fstat(file).st_nlink != 0:
                self.error("a removed file that is open changed")
            os.ftruncate(file, 70_000)
            if os.fstat(file).st_size != 70_000:
                self.error("a removed file cannot grow")
        finally:
            os.close(file)

    def run(self, end):
        acts = [self.append] * 6 + [self.block] * 4 + [self.replace, self.read, self.read]
        acts += [self.move, self.attributes, self.link, self.link, self.own, self.own, self.own]
        acts += [self.list, self.directory, self.held]
        while time.monotonic() < end:
            act = self.random.choice(acts)
            try:
                act()
            except OSError as error:
                # An appended file is at its other name at this moment.
                moved = act in (self.append, self.move, self.attributes)
                if not (moved and error.errno == errno.ENOENT):
                    self.error(f"{act.__name__}: {error}")
            self.counts["operations"] += 1

    def told(self):
        return {key: getattr(self, key) for key in
                ("number", "acknowledged", "blocks", "names", "modes", "errors", "counts", "links")}


def snapshot(top):
    """Path to everything that a user sees of an object."""
    seen = {}
    for place, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(place, name)
            info = os.lstat(path)
            data, attributes = "", ""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    data = hashlib.file_digest(file, "sha256").hexdigest()
                attributes = sorted((key, os.getxattr(path, key)) for key in os.listxattr(path))
            links = 1 if stat.S_ISDIR(info.st_mode) else info.st_nlink
            seen[os.path.relpath(path, top)] = (
                info.st_ino, oct(info.st_mode), links, info.st_size if data else 0,
                info.st_mtime_ns, data, attributes)
    return seen


def judge_records(top, told, errors):
    records = 0
    for name, size in APPENDED.items():
        places = [f"{top}/{place}" for place in (name, f"{name}.moved") if os.path.exists(f"{top}/{place}")]
        if not places:
            errors.append(f"{name} is gone")
            continue
        with open(places[0], "rb") as file:
            data = file.read()
        if data[:size] != pattern(name, size):
            errors.append(f"{name} lost what it had at first")
        found = collections.defaultdict(list)
        for at in range(size, len(data), RECORD):
            record = data[at:at + RECORD]
            head = record[:record.find(b" ", 15) + 1]
            if len(record) < RECORD or hashlib.sha256(head).hexdigest().encode()[:8] not in record:
                errors.append(f"{name} holds a broken record at {at}: {record[:30]!r}")
                break
            found[int(record[1:3])].append(int(record[4:14]))
        for worker in told:
            want = worker["acknowledged"].get(name, [])
            records += len(want)
            have = found.get(worker["number"], [])
            if have != want:
                lost = len(set(want) - set(have))
                errors.append(f"{name}: of {len(want)} records of process {worker['number']} {lost} are gone,"
                              f" {len(have) - len(set(have))} are there twice")
    return records


def judge(top, told, errors):
    records = judge_records(top, told, errors)
    for worker in told:
        for name, data in worker["blocks"].items():
            with open(f"{top}/{name}", "rb") as file:
                if data is not None and os.pread(file.fileno(), BLOCK, worker["number"] * BLOCK) != data:
                    errors.append(f"{name}: the block of process {worker['number']} is not the last one")
        for name, (mode, value) in worker["modes"].items():
            path = next(filter(os.path.exists, (f"{top}/{name}", f"{top}/{name}.moved")), None)
            if path and stat.S_IMODE(os.stat(path).st_mode) != mode:
                errors.append(f"{name}: mode {os.stat(path).st_mode:o}, set to {mode:o}")
            if path and value is not None and os.getxattr(path, "user.own") != value:
                errors.append(f"{name}: the attribute is not the last one")
        for place, names in worker["names"].items():
            seen = {name for name in os.listdir(f"{top}/{place}") if name.startswith(f"own{worker['number']}-")}
            if seen != set(names):
                errors.append(f"{place}: process {worker['number']} left {len(names)} names, {len(seen)} are there")
            for name in seen & set(names):
                with open(f"{top}/{place}/{name}", "rb") as file:
                    if file.read() != names[name]:
                        errors.append(f"{place}/{name} is not what was written")
        for path in worker["links"]:
            if not os.path.exists(path):
                errors.append(f"{path} is gone")
    for name in REPLACED:
        with open(f"{top}/{name}", "rb") as file:
            if whole(file.read()) is None:
                errors.append(f"{name} is torn")
    return records


def judge_links(seen, errors):
    names = collections.Counter(entry[0] for entry in seen.values())
    for path, (number, mode, links, *_) in seen.items():
        if not stat.S_ISDIR(int(mode, 8)) and links != names[number]:
            errors.append(f"{path} has {links} links and {names[number]} names")


def judge_upper(upper, seen, errors):
    for path, (_, mode, _, size, _, data, _) in seen.items():
        place = f"{upper}/{path}"
        if not data or not os.path.exists(place):
            continue
        if any("metacopy" in key for key in os.listxattr(place)):
            continue
        with open(place, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != data:
                errors.append(f"{path} is not in the upper as it was shown")


def alongside(end, place):
    """Has the kernel give up names and inodes now and then, and pages of what is about."""
    while time.monotonic() < end:
        time.sleep(1)
        try:
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("2")
            for name in BLOCKS:
                file = os.open(f"{place}/{name}", os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)
        except OSError:
            pass


# Where groups are, a file that is there then, and the one that bounds their memory: of the second
# version, and of the first.
GROUPS = [
    ("/sys/fs/cgroup", "cgroup.controllers", "memory.high"),
    ("/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.limit_in_bytes"),
]
MEMORY = 512 << 20


def write(path, value):
    with open(path, "w") as file:
        file.write(str(value))


def confined():
    """Puts this process, and what it starts, into a group with little memory, if there is one."""
    for root, sign, limit in GROUPS:
        if not os.path.exists(f"{root}/{sign}"):
            continue
        place = f"{root}/lamina-concurrent-{os.getpid()}"
        try:
            os.mkdir(place)
            write(f"{place}/{limit}", MEMORY)
            write(f"{place}/cgroup.procs", os.getpid())
            return place
        except OSError as error:
            print(f"no group with little memory: {error}", file=sys.stderr)
            released(place)
    return None


def released(place):
    if not place or not os.path.exists(place):
        return
    write(f"{os.path.dirname(place)}/cgroup.procs", os.getpid())
    # The daemon leaves a moment after its mount.
    for _ in range(100):
        try:
            os.rmdir(place)
            return
        except OSError:
            time.sleep(0.1)
    print(f"cannot remove {place}", file=sys.stderr)


def fork(act):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return child


def work(mount, options):
    end = time.monotonic() + options.seconds
    def one(number):
        worker = Worker(number, options.processes, mount.top, options.seed)
        try:
            worker.run(end)
        except Exception as error:
            worker.error(repr(error))
        with open(f"{mount.base}/told{number}", "wb") as file:
            pickle.dump(worker.told(), file)
    children = [fork(lambda number=number: one(number)) for number in range(options.processes)]
    if options.reclaim:
        children.append(fork(lambda: alongside(end, mount.top)))
    errors = []
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            errors.append("a process died")
    told = []
    for number in range(options.processes):
        with open(f"{mount.base}/told{number}", "rb") as file:
            told.append(pickle.load(file))
    return told, errors


def run(mount, options):
    fill(mount.lower, "index=off" not in options.options)
    mount.mount()
    told, errors = work(mount, options)
    for worker in told:
        errors += worker["errors"]
    records = judge(mount.top, told, errors)
    before = snapshot(mount.top)
    judge_links(before, errors)
    mount.unmount()
    if mount.judge != "plain":
        judge_upper(f"{mount.base}/u", before, errors)
    mount.mount()
    judge(mount.top, told, errors)
    after = snapshot(mount.top)
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            errors.append(f"{path} after a remount: {after.get(path)}, before: {before.get(path)}")
    mount.unmount()
    operations = sum(worker["counts"]["operations"] for worker in told)
    for line in errors[:40]:
        print(f"  {line}")
    print(f"{mount.judge} {options.options or 'ordinary'}: {options.processes} processes, {operations} operations,"
          f" {records} records, {len(errors)} errors")
    return not errors


def listings(mount, options):
    """Each process lists one directory that all change, and knows its own names there."""
    fill(mount.lower, False)
    mount.mount()
    end = time.monotonic() + options.seconds

    def one(number):
        worker = Worker(number, options.processes, mount.top, options.seed)
        worker.names = {"s": {}}
        SHARED[:] = ["s"]
        while time.monotonic() < end:
            (worker.list if worker.random.random() < 0.2 else worker.own)()
        print("\n".join(worker.errors), file=sys.stderr)
        if worker.errors:
            os._exit(1)

    children = [fork(lambda number=number: one(number)) for number in range(options.processes)]
    failed = [os.waitpid(child, 0)[1] != 0 for child in children].count(True)
    mount.unmount()
    print(f"{mount.judge}: {failed} of {options.processes} processes saw a wrong listing")
    return not failed


def figures(mount, options):
    """Counts of what is lost, as they were first measured."""
    count = options.files
    for kind in ("w", "a", "c"):
        for number in range(count):
            with open(f"{mount.lower}/{kind}{number}", "wb") as file:
                file.write(b"\0" * (300 << 10))
    with open(f"{mount.lower}/log", "wb") as file:
        file.write(b"\0" * (1 << 20))
    mount.mount()
    barrier = mount.base + "/turn"
    def pair(kind, acts):
        # A shared counter in a file of the host: both start when both are there.
        with open(barrier, "wb") as file:
            file.write(bytes(8))
        with open(barrier, "r+b") as file:
            shared = mmap.mmap(file.fileno(), 8)
        def body(side):
            for number in range(count):
                shared[side] = (number + 1) % 256
                while shared[1 - side] != (number + 1) % 256 and shared[1 - side] != (number + 2) % 256:
                    pass
                acts[side](f"{mount.top}/{kind}{number}")
        children = [fork(lambda side=side: body(side)) for side in (0, 1)]
        return [os.waitpid(child, 0)[1] for child in children]

    def writes(at, flags=0):
        def act(path):
            file = os.open(path, os.O_WRONLY | flags)
            if flags:
                os.write(file, b"%d" % at * BLOCK)
            else:
                os.pwrite(file, b"%d" % at * BLOCK, at * BLOCK)
            os.fsync(file)
            os.close(file)
        return act
    failed = [pair("w", [writes(1), writes(2)]), pair("a", [writes(1, os.O_APPEND), writes(2, os.O_APPEND)]),
              pair("c", [writes(1, os.O_APPEND), lambda path: os.chmod(path, 0o600)])]

    def append(side):
        for number in range(4000):
            file = os.open(f"{mount.top}/log", os.O_WRONLY | os.O_APPEND)
            os.write(file, b"%d %010d\n" % (side, number))
            os.close(file)
    children = [fork(lambda side=side: append(side)) for side in range(3)]
    failed.append([os.waitpid(child, 0)[1] for child in children])
    mount.unmount()
    mount.mount()
    def missing(kind, wanted):
        lost = 0
        for number in range(count):
            with open(f"{mount.top}/{kind}{number}", "rb") as file:
                data = file.read()
                lost += not (all(data.count(mark) == BLOCK for mark in wanted))
                if kind == "c":
                    lost += stat.S_IMODE(os.fstat(file.fileno()).st_mode) != 0o600
        return lost
    with open(f"{mount.top}/log", "rb") as file:
        records = {line for line in file.read()[1 << 20:].split(b"\n") if len(line) == 12}
    both = [missing("w", [b"1", b"2"]), missing("a", [b"1", b"2"]), missing("c", [b"1"])]
    mount.unmount()
    broken = sum(code != 0 for codes in failed for code in codes)
    print(f"{mount.judge}: writes of two openers lost in {both[0]} of {count} files, appends in {both[1]}, a chmod or"
          f" an append in {both[2]}; {12000 - len(records)} of 12000 records lost; {broken} processes failed")
    return not (any(both) or broken or len(records) != 12000)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "figures", "listings"])
    parser.add_argument("--judge", choices=["plain", "kernel", "lamina"], required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--options", default="")
    parser.add_argument("--directory", help="where the layers are made")
    parser.add_argument("--place", help="the same, and stronger")
    parser.add_argument("--no-reclaim", dest="reclaim", action="store_false")
    options = parser.parse_args()
    base = tempfile.mkdtemp(prefix="lamina-concurrent-", dir=options.place or options.directory)
    os.chmod(base, 0o755)
    mount = Mount(options.judge, base, options.options)
    group = confined() if options.reclaim and options.what == "run" else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        act = {"run": run, "figures": figures, "listings": listings}[options.what]
        good = act(mount, options)
    finally:
        subprocess.run(["umount", "-l", mount.top], stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)
        released(group)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
