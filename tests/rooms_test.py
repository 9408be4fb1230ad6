#!/usr/bin/env python3
"""Holds the rule of which room may know which (docs/design.md): by includes, file by file."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAY_KNOW = {
    "config": {"config"},
    "scheduler": {"scheduler", "config"},
    "compute": {"compute", "config"},
    "transport": {"transport", "config"},
    "actors": {"actors", "config", "scheduler", "compute", "transport"},
    "tools": {"tools", "actors", "config", "scheduler", "compute", "transport"},
}
# Libraries that belong to some rooms alone.
LIBRARIES = {
    r"caf/": {"actors"},
    r"ucp/|ucs/|uct/": {"transport", "tools"},  # tools: the hop benchmark compares with bare UCX
    r"openssl/": {"transport", "actors"},
    r"boost/beast": {"transport", "tools"},
    r"yaml-cpp/": {"config"},
    r"CLI/": {"tools"},
}
MOST_CAF_FILES = 20
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
SUFFIXES = {".hpp", ".cpp", ".cu", ".cuh", ".h"}


def sources(folder):
    return sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES)


def sees_caf(files):
    """Files that include CAF, themselves or by another file of ours."""
    includes = {str(p.relative_to(ROOT)): set(INCLUDE.findall(p.read_text(errors="replace"))) for p in files}
    seen = {name for name, found in includes.items() if any(i.startswith("caf/") for i in found)}
    while True:
        more = {name for name, found in includes.items() if found & seen} - seen
        if not more:
            return seen
        seen |= more


def main():
    problems = []
    checked = 0
    for room, allowed in MAY_KNOW.items():
        for path in sources(room):
            checked += 1
            name = path.relative_to(ROOT)
            for include in INCLUDE.findall(path.read_text(errors="replace")):
                other = include.split("/")[0]
                if other in MAY_KNOW and other not in allowed:
                    problems.append(f"{name}: {room}/ may not include {include}")
                for pattern, rooms in LIBRARIES.items():
                    if re.match(pattern, include) and room not in rooms:
                        problems.append(f"{name}: {include} belongs to {', '.join(sorted(rooms))}/")
    everything = [p for folder in [*MAY_KNOW, "tests"] for p in sources(folder)]
    caf = sees_caf(everything)
    if len(caf) > MOST_CAF_FILES:
        problems.append(f"{len(caf)} files see CAF's headers, at most {MOST_CAF_FILES} may: {', '.join(sorted(caf))}")
    for problem in problems:
        print(problem)
    if not checked:
        problems.append("no source was found")
    print(f"{checked} files checked, {len(caf)} see CAF; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
