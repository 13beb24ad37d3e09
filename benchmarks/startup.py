"""Where the time of a finished study went: `python benchmarks/startup.py results/microworld` prints a row for each rule.

`jobs` and `wall` (s, summed over jobs) come from Snakemake's benchmark files; `start-up` is the share of it that went to starting
Python and importing modules, from the last line of each log; what is left of `wall` is work.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

DONE = re.compile(r"done: ([\d.]+) s of start-up and imports, ([\d.]+) s of work")


def main(study: Path) -> None:
    """Prints a Markdown table, slowest rule first."""
    wall: dict[str, list[float]] = defaultdict(list)
    startup: dict[str, list[float]] = defaultdict(list)
    for record in (study / "benchmarks").rglob("*.tsv"):
        place = record.relative_to(study / "benchmarks").with_suffix("")
        kind = "checkpoints" if place.parts[0] == "models" and place.name != "base" else place.parts[0]
        wall[kind].append(float(record.read_text().splitlines()[1].split("\t")[0]))
        if found := DONE.search((study / "logs" / place.with_suffix(".log")).read_text()):
            startup[kind].append(float(found[1]))
    total = sum(map(sum, wall.values()))
    rows = [(kind, len(times), sum(times), sum(startup[kind])) for kind, times in wall.items()]
    rows = [*sorted(rows, key=lambda row: -row[2]), ("all", sum(map(len, wall.values())), total, sum(map(sum, startup.values())))]
    print("| stage | jobs | wall (s) | share of all | start-up |\n|---|---|---|---|---|")
    for kind, jobs, seconds, starting in rows:
        print(f"| {kind} | {jobs} | {seconds:.0f} | {seconds / total:.0%} | {starting / seconds:.0%} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
