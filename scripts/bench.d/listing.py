#!/usr/bin/env python3
"""Part of scripts/bench: lists and removes directories of many entries.

listing.py DIR listing [--entries N] [--modes ours,kernel,...] [--check]

Each case has fresh layers and a fresh mount. `beside`: another process creates and unlinks in the
directory meanwhile. MB: what the daemon's memory grew by at most, and what of it is left.
"""
import argparse
import os
import shutil
import subprocess
import sys
import time

MODES = ["plain", "kernel", "fuse-overlayfs", "ours"]
STEPS = ["scandir cold", "scandir", "ls -f", "find", "two at once", "beside", "stat all", "rm -rf"]


def fill(base, case, entries):
    """Makes the layers: names of the lower, of the upper, and whiteouts of the upper."""
    half = range(entries // 2)
    other = range(entries // 2, entries)
    lower, upper, hidden = {
        "upper": ([], range(entries), []),
        "lower": (range(entries), [], []),
        "merged": (half, other, []),
        "hidden": (range(entries), [], half),
    }[case]
    for layer, names, mode in [("lower", lower, 0o100644), ("upper", upper, 0o100644), ("upper", hidden, 0o020000)]:
        os.makedirs(f"{base}/{layer}", exist_ok=True)
        if names and case != "upper" or layer == "upper" and names:
            os.makedirs(f"{base}/{layer}/d", exist_ok=True)
        for name in names:
            os.mknod(f"{base}/{layer}/d/entry{name:07}", mode, 0)
    return entries - len(hidden)


def memory(pid):
    if pid is None:
        return {"VmHWM": 0, "VmRSS": 0}
    with open(f"/proc/{pid}/status") as file:
        words = dict(line.split(":", 1) for line in file if ":" in line)
    return {key: int(words[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS")}


def scan(path):
    return sum(1 for _ in os.scandir(path))


def run(step, path):
    """One step; answers how many entries it saw, or None where it does not count."""
    if step.startswith("scandir"):
        return scan(path)
    if step == "ls -f":
        return int(subprocess.check_output(f"ls -f {path} | wc -l", shell=True)) - 2
    if step == "find":
        return int(subprocess.check_output(f"find {path} | wc -l", shell=True)) - 1
    if step == "stat all":
        return sum(1 for entry in os.scandir(path) if entry.stat(follow_symlinks=False))
    if step == "two at once":
        counts = subprocess.check_output(f"ls -f {path} | wc -l & find {path} | tail -n +2 | wc -l; wait", shell=True)
        low, high = sorted(int(count) for count in counts.split())
        return low if high - low == 2 else None
    if step == "beside":
        code = "import os,sys\ni=0\nwhile True:\n n=f'{sys.argv[1]}/beside{i%1000}'\n os.mknod(n); os.unlink(n); i+=1"
        other = subprocess.Popen([sys.executable, "-c", code, path])
        try:
            return sum(1 for entry in os.scandir(path) if not entry.name.startswith("beside"))
        finally:
            other.kill()
            other.wait()
            for number in range(1000):
                if os.path.exists(f"{path}/beside{number}"):
                    os.unlink(f"{path}/beside{number}")
    subprocess.run(["rm", "-rf", path], check=True)
    return None if os.path.exists(path) else 0


def measure(base, mode, case, entries):
    shown = fill(base, case, entries)
    if mode == "plain":
        for name in os.listdir(f"{base}/upper/d") if case in ("merged", "upper") else []:
            os.makedirs(f"{base}/lower/d", exist_ok=True)
            os.rename(f"{base}/upper/d/{name}", f"{base}/lower/d/{name}")
        for number in range(entries // 2) if case == "hidden" else []:
            os.unlink(f"{base}/lower/d/entry{number:07}")
    script = f'. "$repo/scripts/lib.sh"; union_mount {mode} "{base}"'
    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "LAMINA_BIN": os.environ["lamina"]})
    found = subprocess.run(["pgrep", "-f", f"{base}/mnt"], capture_output=True, text=True).stdout.split()
    pid, times = (int(found[0]) if found and mode in ("ours", "fuse-overlayfs") else None), []
    before = memory(pid)
    for step in STEPS:
        if step == "scandir cold":
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("3")
        if step == "stat all":
            listed = memory(pid)
        start = time.perf_counter()
        count = run(step, f"{base}/mnt/d")
        times.append(time.perf_counter() - start)
        wanted = 0 if step == "rm -rf" else shown
        if count != wanted:
            sys.exit(f"{mode} {case} {step}: {count} entries of {wanted}")
    subprocess.run(["umount", f"{base}/mnt"], check=True)
    shutil.rmtree(base)
    return times, listed["VmHWM"] - before["VmHWM"], listed["VmRSS"] - before["VmRSS"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("what", choices=["listing"])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--cases", default="upper,lower,merged,hidden")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    print(f"{args.entries} entries, seconds\n\n| layers | mode | {' | '.join(STEPS)} | MB listing, after |")
    print("| --- | --- |" + " --- |" * (len(STEPS) + 1))
    missed = []
    for case in args.cases.split(","):
        for mode in args.modes.split(","):
            times, peak, left = measure(f"{args.dir}/{case}-{mode}", mode, case, args.entries)
            print(f"| {case} | {mode} | {' | '.join(f'{seconds:.2f}' for seconds in times)} | {peak:.0f}, {left:.0f} |", flush=True)
            if mode == "ours" and (peak > 64 or max(times[:6]) > 20 * args.entries / 1e6):
                missed.append(case)
    if missed:
        print(f"\nmore than 64 MB, or a listing of more than 20 us for each entry: {', '.join(missed)}")
    return 1 if missed and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
