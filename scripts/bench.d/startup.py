#!/usr/bin/env python3
"""Part of scripts/bench: start-up time and memory of the program against podman and fuse-overlayfs.

startup.py DIR startup [--runs N]

Every run does each row once with each program, in an order that rotates; the caches are warm.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

LAMINA, FUSE_OVERLAYFS = os.environ["lamina"], os.environ["fuse_overlayfs"]
OBJECTS = 5
PATIENCE = 20


def run(command):
    """Seconds of a command that must not fail."""
    with tempfile.TemporaryFile() as errors:  # a daemon may keep it open
        start = time.monotonic()
        status = subprocess.call(command, stdout=subprocess.DEVNULL, stderr=errors)
        seconds = time.monotonic() - start
        if status != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit code {status}: {errors.read().decode()}")
    return seconds


def run_and_weigh(command):
    """Seconds, and the largest resident size in MiB, of two runs.

    The second is a child of time(1): the kernel counts the size of the process that forks, and this one is large.
    """
    seconds = run(command)
    with tempfile.NamedTemporaryFile("r") as size:
        run(["/usr/bin/time", "-f", "%M", "-o", size.name, *command])
        return seconds, int(size.read()) / 1024


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.0005)


class Stores:
    """A small store of lamina and one of podman, with the same images and volumes, and a layer to mount."""

    def __init__(self, base):
        self.base = base
        self.lamina = ["--root", f"{base}/lamina"]
        self.podman = ["podman", "--root", f"{base}/podman", "--runroot", f"{base}/run", "--storage-driver", "overlay"]
        for name in ("lower", "upper", "work", "mnt"):
            os.mkdir(f"{base}/{name}")
        for number in range(OBJECTS):
            with open(f"{base}/lower/{number}", "w") as file:
                file.write(f"{number}\n")
        with tarfile.open(f"{base}/layer.tar", "w") as tar:
            tar.add(f"{base}/lower", arcname=".")
        for number in range(OBJECTS):
            self.quietly([LAMINA, "image", "import", f"{base}/layer.tar", "-t", f"app{number}", *self.lamina])
            self.quietly([LAMINA, "volume", "create", f"data{number}", *self.lamina])
            self.quietly([*self.podman, "import", f"{base}/layer.tar", f"app{number}"])
            self.quietly([*self.podman, "volume", "create", f"data{number}"])

    def quietly(self, command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")

    def commands(self):
        """(row, program, command) of commands that start, answer and end."""
        podman = self.podman
        return [
            ("--version", "lamina", [LAMINA, "--version"]),
            ("--version", "podman", ["podman", "--version"]),
            ("--version", "fuse-overlayfs", [FUSE_OVERLAYFS, "--version"]),
            (f"list {OBJECTS} images", "lamina", [LAMINA, "image", "ls", *self.lamina]),
            (f"list {OBJECTS} images", "podman", [*podman, "images"]),
            (f"list {OBJECTS} volumes", "lamina", [LAMINA, "volume", "ls", *self.lamina]),
            (f"list {OBJECTS} volumes", "podman", [*podman, "volume", "ls"]),
        ]

    def mount(self, program):
        """Seconds until a mount of one layer answers, and RSS and PSS of its daemon in MiB."""
        lower, upper, work, place = (f"{self.base}/{name}" for name in ("lower", "upper", "work", "mnt"))
        command = {
            "lamina": [LAMINA, "mount", "--lower", lower, "--upper", upper, "--work", work, place],
            "fuse-overlayfs": [FUSE_OVERLAYFS, "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", place],
        }[program]
        start = time.monotonic()
        run(command)
        until(lambda: os.path.exists(f"{place}/{OBJECTS - 1}"), f"a mount by {program}")
        seconds = time.monotonic() - start
        daemons = running(command[0])
        if len(daemons) != 1:
            raise SystemExit(f"{program}: {len(daemons)} daemons serve one mount")
        sizes = memory(daemons[0])
        subprocess.run(["umount", place], check=True)
        until(lambda: not running(command[0]), f"the end of the daemon of {program}")
        return seconds, *sizes


def running(program):
    """The processes of a program in this process namespace, without those that have ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.samefile(f"/proc/{pid}/exe", program):
                found.append(pid)
        except OSError:
            pass  # it has ended meanwhile, or is a thread of the kernel
    return found


def memory(pid):
    """RSS and PSS in MiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = dict(line.split(":") for line in file if line.startswith(("Rss:", "Pss:")))
    return [int(sizes[name].split()[0]) / 1024 for name in ("Rss", "Pss")]


def stripped(program, base):
    """Sizes in MiB as it stands, and without symbols and debug information."""
    subprocess.run(["strip", "-o", f"{base}/stripped", program], check=True)
    return [os.path.getsize(path) / 1024 ** 2 for path in (program, f"{base}/stripped")]


def measure(stores, runs):
    """Samples by (row, program); a sample is a list of figures."""
    work = [(row, program, lambda command=command: run_and_weigh(command))
            for row, program, command in stores.commands()]
    work += [("live mount", program, lambda program=program: stores.mount(program))
             for program in ("lamina", "fuse-overlayfs")]
    samples = {(row, program): [] for row, program, _ in work}
    for _, _, act in work:
        act()  # fills the caches
    for number in range(runs):
        at = number % len(work)
        for row, program, act in work[at:] + work[:at]:
            samples[row, program].append(act())
    return samples


def print_row(row, unit, figures):
    """One row: the figure of each program, and its ratio to that of lamina."""
    own = figures["lamina"]
    cells = [f"{own:.2f}"]
    for program in ("podman", "fuse-overlayfs"):
        cells += [f"{figures[program]:.2f}", f"{own / figures[program]:.2f}"] if program in figures else ["", ""]
    print(f"| {row:<28} | {unit:<4} |" + "".join(f" {cell:>14} |" for cell in cells))


def report(samples, base):
    print(f"| {'median':<28} | {'unit':<4} |" + "".join(
        f" {title:>14} |" for title in ("lamina", "podman", "ratio", "fuse-overlayfs", "ratio")))
    print("| --- | --- |" + " ---: |" * 5)
    rows = list(dict.fromkeys(row for row, _ in samples))
    for row in rows:
        medians = {program: [statistics.median(figures) for figures in zip(*samples[row, program])]
                   for of, program in samples if of == row}
        print_row(row, "ms", {program: figures[0] * 1000 for program, figures in medians.items()})
        for at, name in enumerate(["RSS", "PSS"] if row == "live mount" else ["largest RSS"], 1):
            print_row(f"{row}, {name}", "MiB", {program: figures[at] for program, figures in medians.items()})
    programs = {"lamina": LAMINA, "podman": shutil.which("podman"), "fuse-overlayfs": FUSE_OVERLAYFS}
    sizes = {program: stripped(path, base) for program, path in programs.items()}
    for at, name in enumerate(("program", "program, stripped")):
        print_row(name, "MiB", {program: figures[at] for program, figures in sizes.items()})


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench startup")
    parser.add_argument("base")
    parser.add_argument("command")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    if args.runs < 1:
        sys.exit(f"--runs {args.runs}: at least 1")
    os.environ["LAMINA_RUNTIME_DIR"] = f"{args.base}/runtime"
    stores = Stores(args.base)
    report(measure(stores, args.runs), args.base)


if __name__ == "__main__":
    main()
