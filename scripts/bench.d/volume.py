"""Volumes of each driver against a plain directory: fio and pgbench, in one run.

The volumes are mounted by `lamina serve`, as an engine mounts them, and bound to a place that the database may
enter. Docker's driver `local` is a bind mount of a directory; a raw file is what OpenEBS Rawfile serves, ext4 in a
sparse file on a loop device. Every round measures each of them once, in an order
that rotates; a figure is the median of its rounds, shown as a ratio to the plain directory. Above 1 is faster.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

import chart

FIO = {
    "read 4k": ["--rw=randread", "--bs=4k"],
    "write 4k": ["--rw=randwrite", "--bs=4k"],
    "write 4k, synced": ["--rw=randwrite", "--bs=4k", "--fdatasync=1"],
    "read 1M": ["--rw=read", "--bs=1M"],
    "write 1M": ["--rw=write", "--bs=1M", "--end_fsync=1"],
}
PGBENCH = "pgbench"
POSTGRES = "postgres"


class Plugin(http.client.HTTPConnection):
    """The calls of Docker."""

    def __init__(self, path):
        super().__init__("plugin", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def call(self, call, **body):
        self.request("POST", f"/VolumeDriver.{call}", json.dumps(body))
        reply = json.loads(self.getresponse().read())
        if reply.get("Err"):
            raise RuntimeError(f"{call}: {reply['Err']}")
        return reply


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Place:
    """A directory to be measured."""

    def __init__(self, scratch, name):
        self.name = name
        self.at = f"{scratch}/mnt/{name.replace(' ', '-')}"
        os.makedirs(self.at)

    def bind(self, source):
        run("mount", "--bind", source, self.at)


def raw_file(scratch, size):
    """ext4 in a sparse file, mounted by the kernel."""
    place, file = Place(scratch, "raw file"), f"{scratch}/raw"
    run("truncate", "-s", size, file)
    run("mkfs.ext4", "-q", file)
    run("mount", "-o", "loop", file, place.at)
    return place


def places(args, plugin):
    """The plain directory, that of Docker, and the volumes of the drivers that there are."""
    scratch, size = args.scratch, args.size
    plain = Place(scratch, "plain")
    docker = Place(scratch, "docker local")
    os.makedirs(f"{scratch}/docker/volumes/v/_data")
    docker.bind(f"{scratch}/docker/volumes/v/_data")
    found = [plain, docker, raw_file(scratch, size)]
    wanted = [("local", {}), ("image ext4", {"driver": "image", "fs": "ext4"}),
              ("image xfs", {"driver": "image", "fs": "xfs"}), ("union", {"driver": "union"})]
    for name, options in wanted:
        for limit in ({}, {"size": size}):
            place_name = f"{name} {size}" if limit else name
            if args.only and place_name not in args.only.split(","):
                continue
            volume = place_name.replace(" ", "-")
            try:
                plugin.call("Create", Name=volume, Opts={"driver": "local", **options, **limit})
            except RuntimeError as error:
                print(f"without {place_name}: {error}", file=sys.stderr)
                continue
            place = Place(scratch, place_name)
            place.bind(plugin.call("Mount", Name=volume, ID="bench")["Mountpoint"])
            found.append(place)
    return found


def fio(args, place, words):
    file = f"{place.at}/fio"
    base = ["fio", "--name=x", f"--filename={file}", f"--size={args.file}", "--ioengine=psync", "--output-format=json",
            "--time_based", f"--runtime={args.seconds}", "--invalidate=1", "--randrepeat=1", "--fallocate=none"]
    job = json.loads(run(*base, *words))["jobs"][0]
    part = job["read"] if "read" in words[0] else job["write"]
    return part["io_bytes"] / (part["runtime"] / 1000)


def lay_out(args, place):
    """Writes the file, so that no figure has the allocation of its blocks, and makes the database."""
    run("fio", "--name=x", f"--filename={place.at}/fio", f"--size={args.file}", "--rw=write", "--bs=1M", "--end_fsync=1",
        "--ioengine=psync", "--output-format=json")
    if args.postgres:
        os.makedirs(f"{place.at}/db")
        shutil.chown(f"{place.at}/db", POSTGRES, POSTGRES)
        os.chmod(f"{place.at}/db", 0o700)
        as_postgres(args, "initdb", "-A", "trust", "--no-sync", "-D", f"{place.at}/db")
        with Server(args, place):
            as_postgres(args, PGBENCH, "-q", "-i", "-s", str(args.scale), "-h", args.sockets, "postgres")


def as_postgres(args, program, *words):
    user = ["setpriv", "--reuid", POSTGRES, "--regid", POSTGRES, "--init-groups"]
    return run(*user, f"{args.postgres}/{program}", *words, cwd="/")


class Server:
    """A database that runs in a place."""

    def __init__(self, args, place):
        self.args, self.data = args, f"{place.at}/db"

    def __enter__(self):
        options = f"-h '' -k {self.args.sockets} -c shared_buffers=32MB"
        as_postgres(self.args, "pg_ctl", "-w", "-s", "-D", self.data, "-o", options, "-l", f"{self.data}/log", "start")

    def __exit__(self, *_):
        as_postgres(self.args, "pg_ctl", "-w", "-s", "-D", self.data, "-m", "fast", "stop")


def pgbench(args, place):
    with Server(args, place):
        text = as_postgres(args, PGBENCH, "-n", "-c", "4", "-j", "2", "-T", str(args.seconds * 2), "-h", args.sockets,
                           "postgres")
    line = next(line for line in text.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


def find_postgres():
    """The directory of the programs of PostgreSQL, if pgbench is there too."""
    base = "/usr/lib/postgresql"
    versions = sorted(os.listdir(base), key=int, reverse=True) if os.path.isdir(base) else []
    found = (f"{base}/{version}/bin" for version in versions)
    return next((path for path in found if os.path.exists(f"{path}/{PGBENCH}")), None)


def measure(args, all_places):
    """All figures: of each row and place, those of its rounds."""
    rows = {**FIO, **({PGBENCH: None} if args.postgres else {})}
    figures = {(row, place.name): [] for row in rows for place in all_places}
    for turn in range(args.runs):
        print(f"round {turn + 1} of {args.runs}", file=sys.stderr)
        order = all_places[turn % len(all_places):] + all_places[:turn % len(all_places)]
        for row, words in rows.items():
            for place in order:
                os.sync()
                value = pgbench(args, place) if words is None else fio(args, place, words)
                figures[row, place.name].append(value)
    return rows, figures


def show(rows, all_places, figures, to):
    median = {key: statistics.median(values) for key, values in figures.items()}
    if to:
        ratios = {row: {place.name: round(median[row, place.name] / median[row, "plain"], 3) for place in all_places}
                  for row in rows}
        chart.add(to, "volume", ratios)
    width = max(len(place.name) for place in all_places)
    print(f"{'':{width}}  " + "  ".join(f"{row:>16}" for row in rows))
    for place in all_places:
        ratios = [median[row, place.name] / median[row, "plain"] for row in rows]
        print(f"{place.name:{width}}  " + "  ".join(f"{ratio:16.2f}" for ratio in ratios))


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench volume")
    parser.add_argument("scratch")
    parser.add_argument("what")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=1, help="of a job of fio; pgbench runs twice as long")
    parser.add_argument("--file", default="128M", help="the file of fio")
    parser.add_argument("--scale", type=int, default=5, help="of pgbench")
    parser.add_argument("--size", default="2G", help="the limit of the volumes that have one")
    parser.add_argument("--only", help="names of volumes, separated by commas")
    parser.add_argument("--json", metavar="FILE", help="add the ratios to a file, of which `scripts/bench chart` draws")
    args = parser.parse_args()
    args.postgres, args.sockets = find_postgres(), f"{args.scratch}/sockets"
    if not args.postgres:
        print("without pgbench: PostgreSQL is not installed", file=sys.stderr)
    return args


def main():
    args = arguments()
    os.mkdir(args.sockets)
    os.chmod(args.sockets, 0o777)
    path = f"{args.scratch}/lamina.sock"
    command = [os.environ["lamina"], "serve", "--root", f"{args.scratch}/root", "--docker", path]
    with open(f"{args.scratch}/serve.log", "w") as log:
        serve = subprocess.Popen(command, stderr=log, env={**os.environ, "LAMINA_RUNTIME_DIR": f"{args.scratch}/run"})
    try:
        deadline = time.monotonic() + 20
        while not os.path.exists(path):
            if serve.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(open(f"{args.scratch}/serve.log").read())
            time.sleep(0.05)
        all_places = places(args, Plugin(path))
        for place in all_places:
            lay_out(args, place)
        rows, figures = measure(args, all_places)
        show(rows, all_places, figures, args.json)
    finally:
        serve.terminate()
        serve.wait()


main()
