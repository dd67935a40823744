#!/usr/bin/env python3
"""Part of scripts/xfstests: counts a log of `check` and compares it with the accepted differences.

judge.py LOG TABLE MODE

TABLE is Markdown; a row `| generic/123 | reason |` accepts that failure of ours, a row of `overlay/123` too. Prints one line for each failure,
then the counts; fails when a failure is not in the table, or when nothing ran.
"""
import re
import sys

LINE = re.compile(r"^([a-z]+/\d+)\b(.*)$")


def results(log):
    """Yields (test, outcome, detail) for each line in which `check` reports a test."""
    for line in open(log, errors="replace"):
        match = LINE.match(line)
        if not match:
            continue
        test, rest = match.groups()
        if "[not run]" in rest:
            yield test, "notrun", rest.split("[not run]")[1].strip()
        elif "[failed" in rest or "output mismatch" in rest or "_check_" in rest:
            yield test, "fail", rest.split("[")[-1].strip(" ]\t")
        elif re.search(r"\d+s\s*$", rest):
            yield test, "pass", ""
        else:
            yield test, "fail", "ended without a result"


def main():
    log, table, mode = sys.argv[1:]
    try:
        accepted = dict(re.findall(r"^\| ((?:generic|overlay)/\d+) \| (.*?) \|$", open(table).read(), re.M))
    except FileNotFoundError:
        accepted = {}
    outcomes = {test: (outcome, detail) for test, outcome, detail in results(log)}
    count = {"pass": 0, "fail": 0, "notrun": 0}
    unexpected = 0
    for test, (outcome, detail) in sorted(outcomes.items()):
        count[outcome] += 1
        if outcome == "fail" and mode in ("ours", "overlay") and test in accepted:
            print(f"accepted {test} {accepted[test]}")
        elif outcome == "fail":
            unexpected += 1
            print(f"FAIL {test} {detail}")
    print(f"xfstests {mode}: {count['pass']} pass, {count['fail']} fail ({unexpected} not accepted),"
          f" {count['notrun']} not run")
    return 1 if unexpected or not count["pass"] else 0


if __name__ == "__main__":
    sys.exit(main())
