"""Part of scripts/newcomer: a shell at a terminal of 80 columns and 24 rows, and what stands on it."""
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

COLUMNS, LINES = 80, 24
TOKEN = re.compile(
    r"\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b\[(?P<args>[0-9;?<>=]*)[ -/]*(?P<csi>[@-~])"
    r"|\x1b[()*+].|\x1b(?P<cursor>[^\[\]()*+])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)",
    re.DOTALL,
)
# The shell reports the end of an earlier job before any prompt.
JOB_ENDED = re.compile(r"\[\d+\][-+ ] +(Done|Exit \d|Terminated|Killed) |\(wd now: ")
# Invisible on a terminal: the shell marks its prompts and the beginning of output with them.
PROMPTS = r"PS1='\[\e]133;D;$?\a\]newcomer:\w# ' PS2='\[\e]133;P\a\]> ' PS0='\e]133;C\a'"


class Row(list):
    """One row; `wrapped` where its text goes on in the next."""
    wrapped = False


def blank():
    return [Row() for _ in range(LINES)]


class Screen:
    """A terminal with all that it has shown: rows that have left it, those on it, and the marks of the shell.

    The number of a row counts from the first one of all.
    """

    def __init__(self):
        self.history, self.rows = [], blank()
        self.row, self.column, self.bottom, self.saved = 0, 0, LINES - 1, (0, 0)
        self.marks = []  # (letter, words, number of the row)
        self.has_cursor, self.has_pager, self.rest = True, False, ""

    def here(self):
        return len(self.history) + self.row

    def feed(self, text):
        text, at = self.rest + text, 0
        while match := TOKEN.match(text, at):
            at = match.end()
            if match["text"]:
                self.put(match["text"])
            elif match["control"]:
                self.control(match["control"])
            elif match["csi"]:
                self.sequence(match["csi"], match["args"])
            elif match["cursor"] == "7":
                self.saved = self.row, self.column
            elif match["cursor"] == "8":
                self.row, self.column = self.saved
            elif match["osc"] and match["osc"].startswith("133;"):
                letter, *words = match["osc"].split(";")[1:]
                self.marks.append((letter, words, self.here()))
        self.rest = text[at:]  # the beginning of a sequence

    def put(self, text):
        for letter in text:
            if self.column == COLUMNS:
                self.rows[self.row].wrapped = True
                self.down()
                self.column = 0
            row = self.rows[self.row]
            row.extend(" " * (self.column + 1 - len(row)))
            row[self.column] = letter
            self.column += 1

    def down(self):
        """Goes to the next row; at the end of the region the rows of the region move up."""
        if self.row != self.bottom:
            self.row = min(LINES - 1, self.row + 1)
            return
        first = self.rows.pop(0)
        self.rows.insert(self.bottom, Row())
        if not self.has_pager:
            self.history.append(first)

    def control(self, letter):
        if letter == "\n":
            self.down()
        elif letter == "\r":
            self.column = 0
        elif letter == "\b":
            self.column = max(0, min(self.column, COLUMNS - 1) - 1)
        elif letter == "\t":
            self.column = min(COLUMNS - 1, self.column // 8 * 8 + 8)

    def sequence(self, final, args):
        if args.startswith("?"):
            self.mode(args[1:], final == "h")
        elif re.fullmatch(r"[\d;]*", args):
            numbers = [int(word or 0) for word in args.split(";")]
            if final in "ABCDGHfr":
                self.move(final, [max(1, number) for number in numbers + [0]])
            elif final in "KPJ":
                self.erase(final, numbers[0])

    def move(self, final, numbers):
        row, column, count = self.row, min(self.column, COLUMNS - 1), numbers[0]
        if final in "AB":
            row += count if final == "B" else -count
        elif final in "CD":
            column += count if final == "C" else -count
        elif final == "G":
            column = count - 1
        elif final == "r":
            self.bottom = min(numbers[1], LINES) - 1 if len(numbers) > 2 else LINES - 1
            row, column = 0, 0
        else:
            row, column = count - 1, numbers[1] - 1
        self.row, self.column = max(0, min(row, LINES - 1)), max(0, min(column, COLUMNS - 1))

    def erase(self, final, what):
        row, at = self.rows[self.row], self.column
        if final == "P":
            del row[at:at + max(1, what)]
        elif what == 1:
            row[:at + 1] = " " * min(len(row), at + 1)
        else:
            del row[0 if what == 2 else at:]
        if final == "J":
            for other in self.rows[self.row + 1:] if what == 0 else self.rows:
                other.clear()

    def mode(self, number, on):
        """The cursor, and the screen of a pager, which stays among the rows where it was shown."""
        if number == "25":
            self.has_cursor = on
        elif number == "1049":
            self.history += self.rows[:self.row + on]
            if not on:
                self.history += self.rows[self.row:]
            self.rows, self.row, self.has_pager = blank(), 0, on

    def text(self, first=0, last=None):
        """Rows as lines: what the width has wrapped is one."""
        lines, line = [], ""
        for row in (self.history + self.rows)[first:last]:
            line += "".join(row)
            if not row.wrapped:
                lines.append(line.rstrip())
                line = ""
        return "\n".join([*lines, line]).rstrip("\n")


class Late(Exception):
    """What was waited for did not appear."""


class Shell:
    """`bash -i` in a tree, at a terminal of its own."""

    def __init__(self, tree, env):
        self.screen = Screen()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
            os.chroot(tree)
            os.chdir(env["HOME"])
            os.execve("/bin/bash", ["bash", "-i"], env)
        self.run(PROMPTS)

    def read(self, seconds):
        """Shows what comes within some seconds. False where the shell has ended."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # EIO: nobody has the terminal any more
            return False
        self.screen.feed(self.decoder.decode(data))
        return bool(data)

    def wait(self, is_there, what, seconds):
        end = time.monotonic() + seconds
        while not is_there():
            left = end - time.monotonic()
            if left <= 0:
                raise Late(f"no {what} within {seconds} s")
            if not self.read(left):
                raise Late(f"no {what}: the shell has ended")

    def poll(self, is_there, what, seconds):
        """Like `wait`, for what does not appear on the terminal."""
        end = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > end:
                raise Late(f"no {what} within {seconds} s")
            self.read(0.01)

    def type(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.terminal, data):]

    def prompt(self, keys, seconds=300):
        """Types keys, waits for a prompt, and returns the exit code and the output; no code while a line goes on."""
        screen = self.screen
        begun = len(screen.marks)
        self.type(keys)
        self.wait(lambda: any(mark[0] in "DP" for mark in screen.marks[begun:]), "prompt", seconds)
        self.wait(lambda: screen.text(screen.here()).endswith(("#", ">")), "prompt", 10)
        starts = [row for letter, _, row in screen.marks[begun:] if letter == "C"]
        letter, words, row = next(mark for mark in screen.marks[begun:] if mark[0] in "DP")
        first = starts[0] if starts else row
        lines = [line for line in screen.text(first, row).split("\n") if not JOB_ENDED.match(line)]
        return (int(words[0]) if letter == "D" else None), "\n".join(lines)

    def run(self, line, seconds=300):
        return self.prompt(line.replace("\t", "\x16\t") + "\r", seconds)

    def recover(self):
        """Ends what hangs, and waits until no prompt is on its way."""
        self.prompt("\x03\x15\r", 20)
        while select.select([self.terminal], [], [], 1)[0]:
            self.read(0)

    def end(self):
        """Leaves the shell as a person does; one that does not leave is killed."""
        self.type("\x15exit\r")
        end = time.monotonic() + 20
        while self.read(max(0, end - time.monotonic())) and time.monotonic() < end:
            pass
        os.close(self.terminal)
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            select.select([], [], [], 0.05)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise Late("the shell does not leave")
