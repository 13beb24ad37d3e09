"""Building pairs at size: `prefdelta.pairs.build` against pandas, for a `full` and a `top` selection.

Both start from the same four parquet files (traces and ratings of two generators: five dimensions, five repeats) and write one
parquet file of the same pairs. The baseline reads the columns it needs, groups, merges, and takes the largest deltas or shuffles
all pairs, in memory. It does not check its tables (types, ranges, unique keys), as ours does at both ends. Each chooses among
equal deltas in its own way: that the deltas are the same is checked, that the ids are is not. A run is a process of its own,
timed without imports, and its peak memory is recorded; pandas gets 10 GiB of address space. Texts are short (100 characters), so
they count for less than in a real study, on both sides.

    python benchmarks/pairs.py [--pairs 1000000] [--runs 3]
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import polars as pl

from prefdelta.pairs.build import build_pairs
from prefdelta.pairs.settings import PairsSettings
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.tables.checksum import seal_parquet
from prefdelta.tables.io import sink_batches
from prefdelta.tables.stages import Ratings, Traces

REPEATS, SAMPLES, CHUNK, MEMORY = 5, 4, 100_000, 10 * 2**30
OUT_OF_MEMORY = f"out of memory at {MEMORY // 2**30} GiB"
FILES = ["chosen.traces", "chosen.ratings", "rejected.traces", "rejected.ratings"]


def traces(generator: str, n_pairs: int) -> Iterator[pl.DataFrame]:
    """`Traces`, `CHUNK` at a time, `SAMPLES` of each prompt, sorted by id as the workflow writes them."""
    rng = np.random.default_rng(len(generator))
    for start in range(0, n_pairs, CHUNK):
        row = np.arange(start, min(start + CHUNK, n_pairs))
        columns: dict[str, Any] = {
            "prompt_id": pl.Series(row // SAMPLES).cast(pl.String).str.zfill(16),
            "sample": row % SAMPLES,
            "correct": rng.random(len(row)) < 0.5,
            "n_tokens": rng.integers(20, 40, len(row)),
            "text": pl.Series(rng.integers(0, 2**62, len(row))).cast(pl.String).str.zfill(100),
        }
        frame = pl.DataFrame(columns).with_columns(
            trace_id=pl.concat_str("prompt_id", pl.lit(generator), "sample", separator=":"),
            generator=pl.lit(generator),
            prompt=pl.concat_str(pl.lit("What is "), "prompt_id", pl.lit("?")),
            reasoning=pl.lit("one step"),
            response=pl.lit("7"),
            answer=pl.lit("7"),
            finish_reason=pl.lit("stop"),
        )
        yield frame.select(list(Traces.to_schema().columns))


def ratings(generator: str, n_pairs: int) -> Iterator[pl.DataFrame]:
    """`Ratings` of `traces`, sorted as the judge writes them; 1 % are missing."""
    rng = np.random.default_rng(len(generator) + 100)
    block = pl.DataFrame({"dimension": sorted(DIMENSIONS)}).join(pl.DataFrame({"repeat": range(REPEATS)}), how="cross")
    block = block.sort("repeat", "dimension")
    for part in traces(generator, n_pairs):
        n = len(part) * len(block)
        each, within = np.repeat(np.arange(len(part)), len(block)), np.tile(np.arange(len(block)), len(part))
        frame = pl.DataFrame({"trace_id": part["trace_id"].gather(each)}).hstack(block[within])
        missing = pl.Series(rng.random(n) < 0.01)
        yield frame.with_columns(
            judge=pl.lit("judge"),
            rating=pl.when(~missing).then(pl.Series(rng.integers(1, 6, n))),
            reason=pl.when(missing).then(pl.lit("not JSON")),
        ).select(list(Ratings.by(THE_FIVE).to_schema().columns))


def with_pandas(files: list[Path], output: Path, top: int) -> None:
    """What a user would write: the pairs as one parquet file."""
    import pandas as pd

    def rated(traces: Path, ratings: Path) -> Any:
        long = pd.read_parquet(ratings, columns=["trace_id", "dimension", "rating"])
        means = long.groupby(["trace_id", "dimension"])["rating"].mean().unstack()[list(DIMENSIONS)].dropna()
        means["overall"] = means.mean(axis=1)
        columns = ["trace_id", "prompt_id", "sample", "generator", "prompt", "text", "correct", "n_tokens"]
        return pd.read_parquet(traces, columns=columns).merge(means, left_on="trace_id", right_index=True)

    chosen, rejected = rated(*files[:2]), rated(*files[2:]).drop(columns="prompt")
    pairs = chosen.merge(rejected, on=["prompt_id", "sample"], suffixes=("_chosen", "_rejected"))
    for name in (*DIMENSIONS, "overall"):
        pairs[f"delta_{name}"] = (pairs[f"{name}_chosen"] - pairs[f"{name}_rejected"]).round(9)
    pairs["pair_id"] = pairs["trace_id_chosen"] + "|" + pairs["trace_id_rejected"]
    pairs["judge"] = "judge"
    pairs = pairs.nlargest(top, "delta_overall") if top else pairs.sample(frac=1, random_state=0)
    pairs.to_parquet(output)


def child(kind: str, folder: str, top: int) -> None:
    """One run: prints its seconds and its peak memory as JSON."""
    files, output = [Path(folder, f"{name}.parquet") for name in FILES], Path(folder, f"{kind}.parquet")
    if kind == "pandas":
        import pandas  # noqa: F401  (not timed)

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    started, used = time.perf_counter(), time.process_time()
    if kind == "pandas":
        with_pandas(files, output, top)
    else:
        settings = PairsSettings(judge="judge", selection=f"top{top}-overall" if top else "full", seed=0)
        build_pairs(*files, [], output, settings=settings)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    # Not getrusage's peak, which a process inherits from its parent.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    outcome = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mib": int(peak[1]) // 1024 if peak else None}
    print(json.dumps(outcome))


def run(kind: str, folder: str, top: int) -> dict[str, float] | None:
    """One run in a process of its own; None where it ran out of memory."""
    command = [sys.executable, __file__, "--child", kind, "--folder", folder, "--top", str(top)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and kind == "pandas" and ("MemoryError" in done.stderr or "malloc" in done.stderr or done.returncode < 0):
        return None
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    outcome: dict[str, float] = json.loads(done.stdout)
    print(f"{kind} {'top' if top else 'full'}: {outcome}", flush=True)
    return outcome


def write_tables(n_pairs: int, folder: str) -> None:
    """Writes the four tables that both start from."""
    for generator in ("chosen", "rejected"):
        for kind, batches in (("traces", traces(generator, n_pairs)), ("ratings", ratings(generator, n_pairs))):
            path = Path(folder, f"{generator}.{kind}.parquet")
            sink_batches(batches, path)
            seal_parquet(path)


def same_deltas(folder: str) -> None:
    """Ends the benchmark where the two outputs differ in their deltas."""
    ours, theirs = (pl.read_parquet(f"{folder}/{kind}.parquet", columns=["delta_overall"]) for kind in ("ours", "pandas"))
    if not np.allclose(ours["delta_overall"].sort(), theirs["delta_overall"].sort()):
        sys.exit("the pairs differ")


def compare(n_pairs: int, runs: int, *, alone: bool) -> tuple[list[float], list[dict[str, Any]]]:
    """Ratios (pandas / ours) of the times of both selections together, and all that was measured.

    No ratio where pandas runs out of memory; then ours is measured only if ``alone``.
    """
    ratios, outcomes = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_tables(n_pairs, folder)
        for _ in range(runs):
            times = {"pandas": 0.0, "ours": 0.0}
            for top in (0, n_pairs // 10):
                for kind in times:
                    if kind == "ours" and times["pandas"] == np.inf and not alone:
                        return [], outcomes
                    outcome = run(kind, folder, top)
                    times[kind] += outcome["seconds"] if outcome else np.inf
                    outcomes.append({"kind": kind, "top": top, **(outcome or {"failed": OUT_OF_MEMORY})})
                if times["pandas"] < np.inf:
                    same_deltas(folder)
            if times["pandas"] < np.inf:
                ratios.append(times["pandas"] / times["ours"])
    return ratios, outcomes


def main() -> None:
    """Measures at the size asked for; where pandas runs out of memory, the ratio is that of the first half size that fits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    for name in ("--child", "--folder", "--top"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child, options.folder, int(options.top))
    details, size = {}, options.pairs
    ratios, details[f"{size:,} pairs"] = compare(size, options.runs, alone=True)
    while not ratios:
        size //= 2
        ratios, details[f"{size:,} pairs"] = compare(size, options.runs, alone=False)
    name = f"pairs, {options.pairs / 1e6:g} million"
    command = f"python benchmarks/pairs.py --pairs {options.pairs} --runs {options.runs}"
    fits = "" if size == options.pairs else f", at {size:,} pairs, since pandas ran out of {MEMORY // 2**30} GiB above"
    what = f"time of pandas / time of build_pairs (`full` and `top` together){fits}"
    measure.record(name, command, ratios, ">= 10", what, ["polars", "pandas", "pandera"], **details)
    return None


if __name__ == "__main__":
    main()
