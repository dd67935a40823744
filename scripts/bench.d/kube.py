#!/usr/bin/env python3
"""Part of scripts/bench: volumes and claims of Kubernetes, all at once.

kube.py DIR kube [--counts N,...] [--connections N] [--kubectl] [--claims-first]
"""
import argparse
import base64
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time

PATIENCE = 1800
CORE = "/api/v1"
CLAIMS = f"{CORE}/namespaces/default/persistentvolumeclaims"


def volume(number):
    return {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{number:05}", "labels": {"type": "local"}},
        "spec": {"storageClassName": "manual", "capacity": {"storage": "1Gi"},
                 "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/srv/data/{number}"}},
    }


def claim(number):
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"claim-{number:05}", "namespace": "default"},
        "spec": {"storageClassName": "manual", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "500Mi"}}},
    }


class Daemon:
    """`lamina serve --kube` on a data root of its own."""

    def __init__(self, base):
        os.makedirs(base)
        self.base = base
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        root = ["--root", f"{base}/root"]
        command = [os.environ["lamina"], "serve", "--kube", f"127.0.0.1:{self.port}", "--node", "here", *root]
        self.log = open(f"{base}/log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.config = f"{base}/kubeconfig"
        kubeconfig = [os.environ["lamina"], "kubeconfig", f"--server=https://127.0.0.1:{self.port}", *root]
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(kubeconfig, capture_output=True, text=True)
            if done.returncode == 0 and self.listens():
                break
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"the daemon does not start: {done.stderr} {open(f'{base}/log').read()}")
            time.sleep(0.1)
        with open(self.config, "w") as file:
            file.write(done.stdout)
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        parts = {}
        for name in ["certificate-authority", "client-certificate", "client-key"]:
            data = re.search(rf"{name}-data: *\"?([A-Za-z0-9+/=]+)", done.stdout).group(1)
            parts[name] = f"{base}/{name}"
            with open(parts[name], "wb") as file:
                file.write(base64.b64decode(data))
        self.context.load_verify_locations(parts["certificate-authority"])
        self.context.load_cert_chain(parts["client-certificate"], parts["client-key"])

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=PATIENCE)

    def status(self, name):
        """A size of /proc/PID/status in MB."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(rf"{name}:\s+(\d+)", file.read()).group(1)) / 1024

    def seconds(self):
        """The processor time used so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kubectl(self, *words, text=None):
        command = ["kubectl", "--kubeconfig", self.config, *words]
        env = {**os.environ, "HOME": self.base}
        return subprocess.run(command, input=text, check=True, capture_output=True, text=True, env=env).stdout

    def end(self):
        self.process.terminate()
        self.process.wait(60)


def post_all(daemon, requests, connections):
    """Sends requests over several connections, each object once."""
    left, lock, failed = iter(requests), threading.Lock(), []

    def work():
        connection = daemon.connect()
        while True:
            with lock:
                request = next(left, None)
            if request is None:
                return
            path, body = request
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 201:
                failed.append(said)
                return

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"refused: {failed[0]}")


def watch_bound(daemon, count, done):
    """Waits until as many claims are bound, and notes the time."""
    connection = daemon.connect()
    connection.request("GET", f"{CLAIMS}?watch=1&timeoutSeconds={PATIENCE}")
    bound = set()
    for line in connection.getresponse():
        event = json.loads(line)
        one = event["object"]
        if event["type"] == "ERROR":
            raise SystemExit(f"watch: {one}")
        if one.get("status", {}).get("phase") == "Bound":
            bound.add(one["metadata"]["name"])
        if len(bound) == count:
            break
    done.append(time.monotonic())


def measure(base, count, args):
    daemon = Daemon(base)
    try:
        idle = daemon.status("VmRSS")
        volumes = [(f"{CORE}/persistentvolumes", volume(number)) for number in range(count)]
        claims = [(CLAIMS, claim(number)) for number in range(count)]
        done = []
        watcher = threading.Thread(target=watch_bound, args=(daemon, count, done), daemon=True)
        watcher.start()
        start = time.monotonic()
        first, second = (claims, volumes) if args.claims_first else (volumes, claims)
        if args.kubectl:
            items = [body for _, body in first + second]
            daemon.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        else:
            post_all(daemon, first + second, args.connections)
        sent = time.monotonic()
        watcher.join(PATIENCE)
        if not done:
            raise SystemExit(f"not all of {count} claims are bound after {PATIENCE} s")
        peak, used = daemon.status("VmHWM"), daemon.seconds()
        begin = time.monotonic()
        rows = daemon.kubectl("get", "pv").splitlines()
        listed = time.monotonic() - begin
        if len(rows) != count + 1 or sum(" Bound " in row for row in rows) != count:
            raise SystemExit(f"kubectl get pv shows {len(rows) - 1} rows: {rows[:3]}")
        last = daemon.status("VmHWM")
        return [count, sent - start, done[0] - start, used, idle, peak, last, daemon.status("VmRSS"), listed]
    finally:
        daemon.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("what", choices=["kube"])
    parser.add_argument("--counts", default="250,1000,4000")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kubectl", action="store_true", help="apply one list with kubectl, not over own connections")
    parser.add_argument("--claims-first", action="store_true")
    args = parser.parse_args()
    heads = ["volumes and claims", "sent, s", "all bound, s", "processor, s", "idle, MB", "peak, MB",
             "peak with list, MB", "after, MB", "kubectl get pv, s"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for count in map(int, args.counts.split(",")):
        row = measure(f"{args.dir}/{count}", count, args)
        print("| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) + " |", flush=True)


if __name__ == "__main__":
    main()
