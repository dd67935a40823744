"""What a lease would give and what it would risk: writes by passthrough into an upper that is to have a size.

The kernel writes to a passthrough file without a request, so a daemon has two ways to hold a limit: a permission event
of fanotify(7) before each write (FAN_PRE_ACCESS, which carries the range and may be answered with ENOSPC), or a lease,
during which such events are switched off and the blocks of the file are looked at from time to time.

Speed: medians of fio, as ratios to a plain directory. Error: bytes beyond a lease when its end is noticed, for several
pauses between two looks, on an idle host and beside processes that take all processors. Needs CAP_SYS_ADMIN, Linux 6.14.
"""

import argparse
import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
# linux/fanotify.h
FAN_CLASS_PRE_CONTENT, FAN_PRE_ACCESS = 0x8, 0x100000
FAN_MARK_ADD, FAN_MARK_REMOVE, FAN_MARK_IGNORED_MASK, FAN_MARK_IGNORED_SURV_MODIFY = 0x1, 0x2, 0x20, 0x40
FAN_ALLOW, FAN_DENY = 1, 2
METADATA = struct.Struct("=IBBHQii")
RANGE = struct.Struct("=BBHIQQ")
MIB = 1 << 20


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Watch:
    """Permission events of one file. A write that ends beyond the limit is refused with ENOSPC."""

    def __init__(self, path):
        self.path, self.limit = path.encode(), None
        self.group = LIBC.fanotify_init(FAN_CLASS_PRE_CONTENT, os.O_RDONLY)
        if self.group < 0:
            raise OSError(ctypes.get_errno(), "fanotify_init")
        self.mark(FAN_MARK_ADD)
        self.is_over, self.over = os.pipe()
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.over)
        self.thread.join()
        os.close(self.group)
        os.close(self.is_over)

    def mark(self, flags):
        if LIBC.fanotify_mark(self.group, flags, ctypes.c_uint64(FAN_PRE_ACCESS), -100, self.path):
            raise OSError(ctypes.get_errno(), "fanotify_mark")

    def ignore(self):
        self.mark(FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY)

    def heed(self):
        self.mark(FAN_MARK_REMOVE | FAN_MARK_IGNORED_MASK)

    def answer(self):
        while self.is_over not in select.select([self.group, self.is_over], [], [])[0]:
            events = os.read(self.group, 65536)
            while events:
                length, _, _, begin, _, fd, _ = METADATA.unpack_from(events)
                _, _, _, _, offset, count = RANGE.unpack_from(events, begin)
                full = self.limit is not None and offset + count > self.limit
                reply = FAN_DENY | errno.ENOSPC << 24 if full else FAN_ALLOW
                os.write(self.group, struct.pack("=iI", fd, reply))
                os.close(fd)
                events = events[length:]


def fio(path, words, seconds):
    job = json.loads(run("fio", "--name=x", f"--filename={path}", "--size=64M", "--ioengine=psync", "--time_based",
                         f"--runtime={seconds}", "--fallocate=none", "--output-format=json", *words))["jobs"][0]
    return job["write"]["io_bytes"] / (job["write"]["runtime"] / 1000)


def write_all(path, size):
    """A writer in a process of its own: it ends with the first error."""
    child = os.fork()
    if child == 0:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        block, at = bytes(MIB), 0
        try:
            while at < size:
                at += os.pwrite(fd, block, at)
        except OSError:
            pass
        os._exit(0)
    return child


def beyond(mounted, backing, lease, pause):
    """Bytes beyond the lease when a writer was stopped at the next look."""
    os.truncate(backing, 0)
    with Watch(backing) as watch:
        watch.ignore()
        child = write_all(mounted, 16 * lease)
        while os.stat(backing).st_blocks * 512 < lease:
            time.sleep(pause)
        watch.limit = lease
        watch.heed()
        os.waitpid(child, 0)
    used = os.stat(backing).st_blocks * 512
    os.truncate(backing, 0)
    return max(0, used - lease)


def speeds(args, places):
    rows = {"write 4k": ["--rw=randwrite", "--bs=4k"], "write 1M": ["--rw=write", "--bs=1M"]}
    found = {}
    for round_ in range(args.runs):
        names = list(places)
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            mounted, backing, events = places[name]
            run("fio", "--name=x", f"--filename={mounted}", "--size=64M", "--rw=write", "--bs=1M", "--ioengine=psync")
            with Watch(backing) if events else contextlib.nullcontext() as watch:
                if events == "ignored":
                    watch.ignore()
                for row, words in rows.items():
                    found.setdefault((row, name), []).append(fio(mounted, words, args.seconds))
    print("| row | " + " | ".join(places) + " |\n|" + " --- |" * (len(places) + 1))
    for row in rows:
        plain = statistics.median(found[row, "plain"])
        print(f"| {row} | " + " | ".join(f"{statistics.median(found[row, name]) / plain:.2f}" for name in places) + " |")


def errors(args, mounted, backing):
    print("\n| pause between two looks | idle: median, most | busy: median, most |\n| --- | --- | --- |")
    for pause in (0.001, 0.01, 0.1):
        cells = []
        for busy in (0, 2 * os.cpu_count()):
            hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(busy)]
            try:
                over = [beyond(mounted, backing, args.lease * MIB, pause) / MIB for _ in range(args.runs * 3)]
            finally:
                for hog in hogs:
                    hog.send_signal(signal.SIGKILL)
                    hog.wait()
            cells.append(f"{statistics.median(over):.1f} MiB, {max(over):.1f} MiB")
        print(f"| {pause * 1000:g} ms | {cells[0]} | {cells[1]} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch")
    parser.add_argument("what")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--lease", type=int, default=64, help="MiB")
    args = parser.parse_args()
    lamina, at = os.environ["lamina"], args.scratch
    mounts = {"free": [], "counted": ["--size", "8G"]}
    os.makedirs(f"{at}/lower")
    try:
        for name, words in mounts.items():
            for part in ("upper", "work", "mnt"):
                os.makedirs(f"{at}/{name}/{part}")
            run(lamina, "mount", "--lower", f"{at}/lower", "--upper", f"{at}/{name}/upper", "--work",
                f"{at}/{name}/work", *words, f"{at}/{name}/mnt")
            open(f"{at}/{name}/mnt/f", "wb").close()
        free = (f"{at}/free/mnt/f", f"{at}/free/upper/f")
        speeds(args, {
            "plain": (f"{at}/plain", None, None),
            "passthrough": (*free, None),
            "in a lease": (*free, "ignored"),
            "an event for each write": (*free, "heeded"),
            "counted": (f"{at}/counted/mnt/f", None, None),
        })
        errors(args, *free)
    finally:
        for name in mounts:
            subprocess.run([lamina, "umount", f"{at}/{name}/mnt"], stderr=sys.stderr)


main()
