#!/usr/bin/env python3
"""Judges a report of csi-sanity against the list of specs that do not run.

    judge.py LIST NAME REPORT        prints one line for each spec
    judge.py --skip LIST NAME        prints the expression for --ginkgo.skip

A line of the list has four fields, divided by tabs: the runs (DRIVER-KIND, with *), `lacks` or `skip`, a part of the
name of the specs, and the reason. A spec that csi-sanity leaves out itself must be listed as `lacks`, and one that is
listed so must be left out. `skip` is for specs that cannot hold for the driver.
"""

import fnmatch
import os
import re
import sys
import xml.etree.ElementTree as xml


def entries(path, name):
    """The entries for a run, as (how, part, reason)."""
    found = []
    for line in open(path, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            runs, how, part, reason = line.rstrip("\n").split("\t")
            assert how in ("lacks", "skip") and reason, line
            if fnmatch.fnmatch(name, runs):
                found.append((how, part, reason))
    return found


def judge(listed, name, report):
    """Prints the result of each spec, and returns the number of bad ones."""
    if not os.path.exists(report):
        print(f"FAIL {name}::report csi-sanity wrote none: see its log")
        return 1
    bad = ran = 0
    left = {part for how, part, _ in listed if how == "lacks"}
    is_whole = not any(one.get("value") for one in xml.parse(report).iter("property") if one.get("name") == "FocusStrings")
    for case in xml.parse(report).iter("testcase"):
        title = case.get("name").removeprefix("[It] ")
        if not case.get("name").startswith("[It] "):
            continue
        reasons = [(part, reason) for _, part, reason in listed if part in title]
        spec = f"{name}::{re.sub(r'[^A-Za-z0-9]+', '_', title)}"
        status = case.get("status")
        if status in ("skipped", "pending"):
            if not is_whole:
                continue
            left -= {part for part, _ in reasons}
            if reasons or status == "pending":
                print(f"# {spec} does not run: {reasons[0][1] if reasons else 'csi-sanity has it pending'}")
            else:
                said = case.find("skipped")
                print(f"FAIL {spec} is left out without a listed reason: {said.get('message') if said is not None else ''}")
                bad += 1
        elif status == "passed":
            ran += 1
            print(f"ok {spec}")
        else:
            said = case.find("failure")
            text = (said.get("message") or said.text or "") if said is not None else status
            print(f"FAIL {spec} {' '.join(text.split())[:300]}")
            bad += 1
    for part in sorted(left) if is_whole else []:
        print(f"FAIL {name}::list is not needed any more: {part}")
        bad += 1
    if ran == 0:
        print(f"FAIL {name}::report no spec ran")
        bad += 1
    return bad


def main():
    if sys.argv[1] == "--skip":
        parts = [re.escape(part) for how, part, _ in entries(*sys.argv[2:4]) if how == "skip"]
        # An empty expression would leave out all.
        print("|".join(parts) or "no such spec")
        return 0
    path, name, report = sys.argv[1:4]
    return 1 if judge(entries(path, name), name, report) else 0


sys.exit(main())
