#!/usr/bin/env python3
"""Part of scripts/bench: draws docs/bench.svg from the ratios in docs/bench.json.

chart.py FILE.json OUTPUT.svg

The speed of each operation as a part of that of a plain directory, on a scale of powers of two: each line is an
operation, each mark a file system. What is right of the middle is faster than the directory.
"""
import html
import json
import math
import os
import sys

COLOURS = {"ours": "#0969da", "kernel": "#57606a", "fuse-overlayfs": "#bc4c00",
           "docker local": "#57606a", "raw file": "#bc4c00", "union": "#0969da", "image ext4 2G": "#1a7f37"}
SHOWN = {"ours": "Lamina", "kernel": "kernel overlayfs", "docker local": "Docker local",
         "raw file": "ext4 in a file (Rawfile)", "union": "Lamina union", "image ext4 2G": "Lamina image"}
PARTS = [("Union mounts: calls", "meta", ["ours", "kernel", "fuse-overlayfs"]),
         ("Union mounts: data", "data", ["ours", "kernel", "fuse-overlayfs"]),
         ("Volumes", "volume", ["union", "image ext4 2G", "docker local", "raw file"])]
LEFT, WIDTH, ROW, LEAST, MOST = 210, 520, 20, 1 / 32, 4


def add(path, what, ratios):
    """Puts the ratios of a run into a file beside those of other runs."""
    known = {}
    if os.path.exists(path):
        with open(path) as file:
            known = json.load(file)
    known[what] = ratios
    with open(path, "w") as file:
        json.dump(known, file, indent=1, sort_keys=True)
        file.write("\n")


def at(ratio):
    span = math.log2(MOST) - math.log2(LEAST)
    inside = min(max(ratio, LEAST), MOST)
    return LEFT + WIDTH * (math.log2(inside) - math.log2(LEAST)) / span


def text(x, y, words, anchor="start", size=12, weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">'
            f"{html.escape(words)}</text>")


def part(title, rows, names, top):
    """One group of lines; the elements, and where it ends."""
    names = [name for name in names if any(name in ratios for ratios in rows.values())]
    out = [text(10, top, title, size=14, weight="bold")]
    x = LEFT
    for name in names:
        out.append(f'<circle cx="{x}" cy="{top - 4}" r="5" fill="{COLOURS[name]}"/>')
        out.append(text(x + 9, top, SHOWN.get(name, name)))
        x += 24 + 7 * len(SHOWN.get(name, name))
    y = top + ROW
    for row, ratios in rows.items():
        out.append(f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + WIDTH}" y2="{y - 4}" stroke="#d0d7de"/>')
        out.append(text(LEFT - 10, y, row, "end"))
        for name in (name for name in reversed(names) if name in ratios):
            words = f"{SHOWN.get(name, name)}, {row}: {ratios[name]:.2f}"
            out.append(f'<circle cx="{at(ratios[name]):.1f}" cy="{y - 4}" r="5" fill="{COLOURS[name]}">'
                       f"<title>{html.escape(words)}</title></circle>")
        y += ROW
    return out, y + ROW


def draw(known):
    body, top = [], 50
    for title, what, names in PARTS:
        if what in known:
            elements, top = part(title, known[what], names, top)
            body += elements
    for step in range(round(math.log2(LEAST)), round(math.log2(MOST)) + 1):
        ratio = 2.0 ** step
        width = 2 if ratio == 1 else 1
        body.insert(0, f'<line x1="{at(ratio):.1f}" y1="28" x2="{at(ratio):.1f}" y2="{top - ROW}" stroke="#d0d7de" '
                       f'stroke-width="{width}"/>')
        body.append(text(at(ratio), 22, f"{ratio:g}" if ratio >= 1 else f"1/{round(1 / ratio)}", "middle"))
    body.append(text(10, 22, "speed; a plain directory is 1", size=11))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{top}" '
            f'font-family="sans-serif" fill="#1f2328"><rect width="100%" height="100%" fill="#fff"/>'
            + "".join(body) + "</svg>\n")


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        drawing = draw(json.load(source))
    with open(sys.argv[2], "w") as target:
        target.write(drawing)
