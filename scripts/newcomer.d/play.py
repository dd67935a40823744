#!/usr/bin/env python3
"""Part of scripts/newcomer: plays a newcomer's hour at a terminal in a tree. Needs root.

play.py [--page] TREE README MISTAKES TRANSCRIPT

Installs /tmp/lamina.deb of the tree, types each block of README and compares the output with the page, then, without
--page, makes the mistakes of a file, completes words, reads the manual page and interrupts an import. Prints
`ok NAME` or `FAIL NAME REASON` for each; TRANSCRIPT gets what was on the terminal.
"""
import argparse
import os
import re
import sys

from terminal import Late, Shell

ENV = {"HOME": "/root", "TERM": "xterm", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
BAR = re.compile(r" \d[\d.]* ?[KMGT]?i?B/s ")
FENCE = re.compile(r"```(sh|console)(?: skip (.*))?$")


class Results:
    """Prints one line for each check and counts those that fail."""
    failed = 0

    def add(self, name, problem=None):
        print(f"FAIL {name} {problem}" if problem else f"ok {name}", flush=True)
        self.failed += bool(problem)


def page_units(text):
    """(name, commands, output or None) of each `sh` block and each `$ ` line; what is skipped is printed."""
    units, kind = [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if line.startswith("```"):
            kind = None if kind else (fence[1] if fence and not fence[2] else "other")
            if fence and fence[2]:
                print(f"skip {fence[2]}")
            if kind == "sh":
                units.append((f"line-{number:03}", [], None))
        elif kind == "sh":
            units[-1][1].append(line)
        elif kind == "console" and line.startswith("$ "):
            units.append((f"line-{number:03}", [line[2:]], []))
        elif kind == "console":
            units[-1][2].append(line)
    return [(name, lines, shown if shown is None else "\n".join(shown)) for name, lines, shown in units]


def is_like(got, shown):
    """Whether output is that of a page, on which `...` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), got, re.DOTALL) is not None


def is_on_page(got, shown):
    """The page may leave out what a command says on the standard error: its progress and what it did."""
    results = [line for line in got.split("\n") if not re.match("lamina: |  try: ", line) and not BAR.search(line)]
    return any(is_like(text.strip("\n"), shown) for text in (got, "\n".join(results)))


def play_unit(shell, lines, shown):
    """Types the lines and returns what is wrong, if anything."""
    for line in lines:
        status, got = shell.run(line)
        if status:
            return f"'{line}': exit code {status}: {got.splitlines()[-1:]}"
        if status == 0 and shown is not None and not is_on_page(got, shown):
            return f"'{line}': got {got!r}, the page shows {shown!r}"
    if status is None:
        return f"'{lines[-1]}': the shell waits for more"
    return None


def last_lines(shell, count):
    return shell.screen.text().splitlines()[-count:]


def attempt(shell, results, name, act):
    """Plays one part. A part that hangs is interrupted, so that the next one has a prompt."""
    try:
        results.add(name, act())
    except Late as late:
        results.add(name, f"{late}; the terminal ends with {last_lines(shell, 3)!r}")
        shell.recover()


def mistakes(text):
    """(title, [(command, output, exit code)]) of each entry of the file."""
    entries = []
    for line in text.splitlines():
        code = re.fullmatch(r"\[exit code (\d+)\]", line)
        if line.startswith("== "):
            entries.append((line[3:], []))
        elif line.startswith("$ "):
            entries[-1][1].append([line[2:], [], 0])
        elif code:
            entries[-1][1][-1][2] = int(code[1])
        elif entries and line:
            entries[-1][1][-1][1].append(line)
    return entries


def make_mistake(shell, commands):
    problems = []
    for command, shown, code in commands:
        status, got = shell.run(command)
        if status != code or not is_like(got, "\n".join(shown)):
            problems.append(f"'{command}': got exit code {status} and {got!r}, expected {code} and {shown}")
    return "; ".join(problems)


def complete(shell, typed, wanted):
    """Types a part of a line and TAB, and empties the line when the wanted words stand on the terminal."""
    screen, first = shell.screen, shell.screen.here()
    shell.type(typed)
    shell.wait(lambda: all(word in screen.text(first).split() for word in wanted), f"{wanted}", 10)
    shell.prompt("\x15\r", 20)


def read_manual(shell):
    """The first screen of the page has its name and the prompt of the pager, and `q` leaves it."""
    screen = shell.screen
    shell.type("man lamina\r")

    def is_shown():
        top, end = screen.text(len(screen.history)), ("(press", "(END)")
        return screen.has_pager and "lamina(1)" in top.lower() and "\nNAME" in top and any(word in top for word in end)

    shell.wait(is_shown, "first screen of the page", 30)
    status, _ = shell.prompt("q", 20)
    return f"exit code {status}" if status or screen.has_pager else None


def has_bar(shell):
    """Waits until a bar has moved on the terminal."""
    first, bars = shell.screen.here(), set()

    def has_moved():
        bars.update(line for line in shell.screen.text(first).splitlines() if BAR.search(line))
        return len(bars) > 2

    shell.wait(has_moved, "progress", 60)


def has_read(shell):
    """Waits until the command in the foreground has read 16 MiB: the import of a directory shows no bar."""
    def is_far():
        pid = os.tcgetpgrp(shell.terminal)
        try:
            with open(f"/proc/{pid}/io") as file:
                return pid != shell.pid and int(re.search(r"rchar: (\d+)", file.read())[1]) > 1 << 24
        except (FileNotFoundError, ProcessLookupError):
            return False  # it has ended

    shell.poll(is_far, "command that reads", 60)


def interrupt_import(shell, source, wait):
    """^C in the middle. What it leaves on the terminal is whole lines, a prompt and a cursor; no image is there."""
    screen = shell.screen
    shell.type(f"lamina image import {source} -t large\r")
    wait(shell)
    status, got = shell.prompt("\x03", 20)
    prompt = screen.text(screen.here())
    if status != 130:
        return f"exit code {status}: {got!r}"
    if not prompt.startswith("newcomer:") or not screen.has_cursor:
        return f"the prompt is {prompt!r}, the cursor is {'shown' if screen.has_cursor else 'hidden'}"
    _, left = shell.run("stty -a | grep -ow -e -echo -e -icanon; lamina image ls | grep large")
    return f"left behind: {left!r}" if left else None


def play(shell, args, results):
    def installed():
        return play_unit(shell, ["cd /tmp && apt install -y ./lamina.deb && cd"], None)

    attempt(shell, results, "newcomer::install", installed)
    with open(args.readme) as file:
        for name, lines, shown in page_units(file.read()):
            attempt(shell, results, f"readme::{name}", lambda: play_unit(shell, lines, shown))
    if args.page:
        return
    with open(args.mistakes) as file:
        for title, commands in mistakes(file.read()):
            name = f"newcomer::{title.replace(' ', '_')}"
            attempt(shell, results, name, lambda: make_mistake(shell, commands))
    attempt(shell, results, "newcomer::ctrl_c_of_a_directory", lambda: interrupt_import(shell, "/usr", has_read))
    attempt(shell, results, "newcomer::large_tar", lambda: play_unit(shell, ["tar -cf /srv/usr.tar -C / usr"], None))
    attempt(shell, results, "newcomer::progress_and_ctrl_c_of_a_tar",
            lambda: interrupt_import(shell, "/srv/usr.tar", has_bar))
    # What a system of Debian has, and a tree of debootstrap has not.
    tools = ["apt-get update && apt-get install -y bash-completion man-db less", ". /etc/profile.d/bash_completion.sh"]
    attempt(shell, results, "newcomer::tools", lambda: play_unit(shell, tools, None))
    attempt(shell, results, "newcomer::tab_completes_a_noun", lambda: complete(shell, "lamina vol\t", ["volume"]))
    attempt(shell, results, "newcomer::tab_lists_verbs",
            lambda: complete(shell, "lamina volume \t\t", ["create", "ls", "rm"]))
    attempt(shell, results, "newcomer::manual", lambda: read_manual(shell))


def main():
    parser = argparse.ArgumentParser(prog="play.py")
    parser.add_argument("--page", action="store_true")
    for name in ("tree", "readme", "mistakes", "transcript"):
        parser.add_argument(name)
    args = parser.parse_args()
    results, shell = Results(), Shell(args.tree, ENV)
    try:
        play(shell, args, results)
        shell.end()
    except Late as late:
        results.add("newcomer::session", f"{late}: {last_lines(shell, 5)!r}")
    finally:
        with open(args.transcript, "w") as file:
            file.write(shell.screen.text() + "\n")
    sys.exit(results.failed > 0)


if __name__ == "__main__":
    main()
