"""Part of scripts/bench: a tree with the shape of a Debian system, the same one for the same count of files.

Of the files, 1.5 % have 128 KiB or more and together 70 % of the bytes; most of the others are below 8 KiB. Content is
words with the frequencies of a language, with runs of numbers and of noise between them: zstd at level 3 makes it
about a third of its length.
"""
import os
import random

FILE_BYTES = 41_000  # the mean of all files: 50,000 files are 2 GB
LARGE_SHARE, LARGE_BYTES = 0.015, 0.70
LARGE_MIN, LARGE_MAX = 128 << 10, 32 << 20
POOL = 16 << 20
TIME = 1_700_000_000
WORDS = 4_000


def pool(rng):
    """Text of Zipf-distributed words."""
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "er", "an", "is", "on", "_")]
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(WORDS)]
    weights = [(n + 2.7) ** -1.1 for n in range(WORDS)]
    marks = [" "] * 12 + ["\n    ", "(", ") ", ";\n", " = ", ", ", "."]
    text, length = [], 0
    while length < POOL:
        for word in rng.choices(words, weights, k=10_000):
            text.append(word + rng.choice(marks))
            length += len(text[-1])
    return "".join(text).encode()[:POOL]


def content(rng, text, size):
    """Runs of 1 to 16 KiB: text, numbers that count up, and noise."""
    made, left = [], size
    while left > 0:
        run = min(left, rng.randrange(1 << 10, 16 << 10))
        kind = rng.random()
        if kind < 0.86:
            at = rng.randrange(len(text) - run)
            made.append(text[at:at + run])
        elif kind < 0.96:
            base, step = rng.randrange(1 << 24), rng.randrange(8, 64)
            table = b"".join((base + n * step).to_bytes(8, "little") for n in range(run // 8 + 1))
            made.append(table[:run])
        else:
            made.append(rng.randbytes(run))
        left -= run
    return b"".join(made)


def sizes(rng, files):
    """The sizes of all files, in the order in which they are made."""
    large = int(files * LARGE_SHARE)
    big = [min(LARGE_MAX, LARGE_MIN + rng.lognormvariate(13.2, 1.3)) for _ in range(large)]
    factor = files * FILE_BYTES * LARGE_BYTES / max(1, sum(big))
    big = [max(LARGE_MIN, int(size * factor)) for size in big]
    small = [min(LARGE_MIN - 1, int(rng.lognormvariate(8.0, 1.75))) for _ in range(files - large)]
    all_sizes = big + small
    rng.shuffle(all_sizes)
    return all_sizes


def directories(rng, files):
    """Relative paths of directories, some twelve files to each, up to seven deep."""
    dirs = ["."]
    for n in range(files // 12):
        parent = rng.choice(dirs[-400:]) if rng.random() < 0.6 else rng.choice(dirs)
        if parent.count("/") >= 6:
            parent = "."
        dirs.append(f"{parent}/{rng.choice(('lib', 'share', 'doc', 'module', 'locale'))}-{n:x}")
    return dirs


def settle(path, follow=True):
    os.utime(path, (TIME, TIME), follow_symlinks=follow)


def make(root, files):
    """Makes the tree; answers the bytes of its files."""
    rng = random.Random(20240601)
    text = pool(rng)
    dirs = directories(rng, files)
    for name in dirs:
        os.makedirs(f"{root}/{name}", exist_ok=True)
    total = 0
    for n, size in enumerate(sizes(rng, files)):
        # An eighth of the directories hold half of the files.
        place = dirs[rng.randrange(len(dirs)) if n % 2 else rng.randrange(0, len(dirs), 8)]
        name = f"{root}/{place}/{rng.choice(('lib', 'py', 'image', 'copyright', 'messages'))}{n:05}"
        with open(name, "wb") as file:
            file.write(content(rng, text, size))
        settle(name)
        total += size
        if n % 12 == 0:
            os.symlink(os.path.basename(name), f"{name}.so")
            settle(f"{name}.so", False)
    for name in reversed(dirs):
        settle(f"{root}/{name}")
    return total


def make_large(path, size):
    """One large file of the same content."""
    rng = random.Random(7)
    text = pool(rng)
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(content(rng, text, 1 << 20))
    settle(path)


def make_many(root, entries):
    """So many empty files, a hundred to a directory."""
    for n in range(entries // 101 + 1):
        os.makedirs(f"{root}/{n:04}")
        for m in range(100):
            open(f"{root}/{n:04}/{m:03}", "wb").close()
