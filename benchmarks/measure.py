"""Side-by-side measurements: alternating runs, a ratio with its spread, a JSON file and a Markdown table of all benchmarks."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS, TABLE = FOLDER / "results.json", FOLDER / "README.md"
MARKS = ("<!-- results -->\n", "<!-- end of results -->\n")


def alternate(first: Callable[[], float], second: Callable[[], float], runs: int) -> list[tuple[float, float]]:
    """What ``first`` and ``second`` return (seconds, say), in turn ``runs`` times: the machine is as fast for both."""
    return [(first(), second()) for _ in range(runs)]


def record(name: str, command: str, ratios: list[float], goal: str, what: str, packages: list[str], **details: Any) -> None:
    """Prints the benchmark ``name`` and writes it to `RESULTS` and `TABLE`.

    ``ratios``: one for each of the alternating runs; the middle one is reported, with the smallest and the largest. ``goal``:
    such as ">= 3" or "< 2", or "none". ``what``: what is divided by what, in a few words. ``packages``: those whose versions
    matter. ``details``: further figures.
    """
    entry = {
        "ratio": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "runs": len(ratios),
        "goal": goal,
        "what": what,
        "command": command,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "machine": {"device": device(), "cores": len(os.sched_getaffinity(0))},
        "details": details,
    }
    print(f"{name}: {entry['ratio']} ({entry['low']} to {entry['high']}; goal {goal}): {what}\n  {details}", flush=True)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known[name] = entry
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    text = TABLE.read_text(encoding="utf-8")
    before, after = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    TABLE.write_text(text[:before] + _table(known) + text[after:], encoding="utf-8")


def device() -> str:
    """The processor, or the GPU where there is one."""
    if "torch" in sys.modules and (torch := sys.modules["torch"]).cuda.is_available():
        return str(torch.cuda.get_device_name())
    named = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return named[1] if named else platform.machine()


def seconds(command: list[str], **options: Any) -> float:
    """Wall time of a command that must succeed. Its output is shown only if it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def _table(entries: dict[str, Any]) -> str:
    lines = ["| benchmark | ratio | spread | goal | what | command |", "|---|---|---|---|---|---|"]
    for name, entry in sorted(entries.items()):
        spread = f"{entry['low']:g} to {entry['high']:g} ({entry['runs']} runs)"
        met = "" if _met(entry) else ", **missed**"
        cells = [name, f"{entry['ratio']:g}", spread, entry["goal"] + met, entry["what"], f"`{entry['command']}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _met(entry: dict[str, Any]) -> bool:
    sign, _, bound = entry["goal"].partition(" ")
    return sign == "none" or bool(entry["ratio"] >= float(bound) if sign == ">=" else entry["ratio"] < float(bound))
