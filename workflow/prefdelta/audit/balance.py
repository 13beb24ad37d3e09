"""Balance: whether arms that are compared differ in more than what they are to differ in: prompts and traces."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prefdelta.findings.intervals import Array
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA
from prefdelta.tables.findings import Balance
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs, Traces

IMBALANCE = 0.1  # a standardised mean difference above it is not negligible (Austin 2009, doi 10.1002/sim.3697)
ROUNDING = 1e-9  # what differs by less is equal but for floating point
SIDES = ("chosen", "rejected")
COVARIATES = {  # name -> unit
    "prompt_difficulty": "share",
    "log_length_ratio": "log",
    **{f"{side}_tokens": "tokens" for side in SIDES},
    **{f"{side}_{name}": "share" for name in ("correct", "well_formed") for side in SIDES},
    **{f"{side}_{criterion}": "levels" for side in (*SIDES, "delta") for criterion in CRITERIA},
}


@dataclass(frozen=True)
class Moments:
    """Mean and variance (divided by n, so that of a share p it is p (1 - p)) of each of `COVARIATES` among ``n`` pairs."""

    n: int
    mean: Array
    variance: Array


def mixture(parts: list[Moments], weights: list[int] | None = None) -> Moments:
    """The moments of all pairs of ``parts`` together, where a part counts by its weight; by default all parts count alike."""
    mean = np.average([part.mean for part in parts], axis=0, weights=weights)
    spreads = [part.variance + (part.mean - mean) ** 2 for part in parts]
    return Moments(sum(part.n for part in parts), mean, np.average(spreads, axis=0, weights=weights))


def standardised_difference(mean: float, mean_versus: float, variance: float, variance_versus: float) -> float | None:
    """(mean - mean_versus) / sqrt((variance + variance_versus) / 2); None where nothing varies, but the means differ."""
    if math.isclose(mean, mean_versus, rel_tol=ROUNDING, abs_tol=ROUNDING):
        return 0.0
    spread = math.sqrt((variance + variance_versus) / 2)
    return (mean - mean_versus) / spread if spread > ROUNDING * max(1, abs(mean)) else None


def tabulate_balance(output: Path | str, *, study: str, experiments: list[dict[str, Any]]) -> None:
    """Writes the `Balance` of every arm of ``experiments`` with each of its controls.

    An experiment is `grid.experiment_content` with the ``cells`` of each arm, over whose pair sets (one for each seed) an arm's
    means and variances are, all seeds with equal weight. How difficult a prompt is, is the same number on both sides of a
    comparison: the share of wrong answers to it, in all traces by all generators that occur in either arm.
    """
    rows: list[dict[str, Any]] = []
    for content in experiments:
        cells = {arm["arm"]: arm["cells"] for arm in content["arms"]}
        for arm in content["arms"]:
            for versus in dict.fromkeys(arm["versus"]):
                sides = [cells[arm["arm"]], cells[versus]]
                writers = sorted({cell[side] for side_cells in sides for cell in side_cells for side in SIDES})
                traces = tuple(paths.TRACES.format(study=study, generator=name) for name in writers)
                own, other = (mixture([_moments(paths.PAIRS.format(**cell), traces) for cell in each]) for each in sides)
                common = {"experiment": content["experiment"], "arm": arm["arm"], "versus": versus}
                common |= {"n_pairs": round(own.n / len(sides[0])), "n_pairs_versus": round(other.n / len(sides[1]))}
                for place, (covariate, unit) in enumerate(COVARIATES.items()):
                    mean, mean_versus = float(own.mean[place]), float(other.mean[place])
                    smd = standardised_difference(mean, mean_versus, float(own.variance[place]), float(other.variance[place]))
                    row = {"covariate": covariate, "unit": unit, "mean": mean, "mean_versus": mean_versus, "smd": smd}
                    rows.append(common | row | {"imbalanced": smd is None or abs(smd) > IMBALANCE})
    write_result_table(rows_to_table(rows, Balance), Balance, output)


@cache
def _moments(pairs: str, traces: tuple[str, ...]) -> Moments:
    """Of one pair set. Its traces are in any of the files ``traces``: of a flipped pair, the chosen one is the other side's."""
    difficulty = _difficulty(traces)
    malformed = pl.concat([_malformed(file) for file in traces]).implode()
    computed = ("prompt_difficulty", "log_length_ratio", "chosen_well_formed", "rejected_well_formed")
    ids = ["pair_id", "prompt_id", "chosen_trace_id", "rejected_trace_id"]
    chosen, rejected = (pl.col(f"{side}_tokens").clip(lower_bound=1) for side in SIDES)
    parts = []
    for batch in read_batches(pairs, Pairs, [*ids, *(name for name in COVARIATES if name not in computed)]):
        if batch.is_empty():
            continue
        frame = batch.join(difficulty, on="prompt_id", how="left").with_columns(
            log_length_ratio=(chosen / rejected).log(),
            chosen_well_formed=~pl.col("chosen_trace_id").is_in(malformed),
            rejected_well_formed=~pl.col("rejected_trace_id").is_in(malformed),
        )
        values = frame.select(pl.col(list(COVARIATES)).cast(pl.Float64)).to_numpy()
        parts.append(Moments(len(values), values.mean(axis=0), values.var(axis=0)))
    return mixture(parts, [part.n for part in parts])


@cache
def _difficulty(traces: tuple[str, ...]) -> pl.DataFrame:
    """``prompt_id`` and ``prompt_difficulty`` of all prompts that were answered."""
    by_prompt = pl.concat([_answers(file) for file in traces]).group_by("prompt_id").agg(pl.col("n", "wrong").sum())
    return by_prompt.select("prompt_id", prompt_difficulty=pl.col("wrong") / pl.col("n"))


@cache
def _answers(traces: str) -> pl.DataFrame:
    """The numbers of answers, and of wrong ones, by prompt."""
    batches = read_batches(traces, Traces, ["trace_id", "prompt_id", "correct"])
    counted = [batch.group_by("prompt_id").agg(n=pl.len(), wrong=(~pl.col("correct")).sum()) for batch in batches]
    return pl.concat(counted).group_by("prompt_id").agg(pl.col("n", "wrong").sum())


@cache
def _malformed(traces: str) -> pl.Series:
    """The traces that did not end by themselves, or whose answer could not be extracted."""
    bad = pl.col("answer").is_null() | (pl.col("finish_reason") != "stop")
    batches = read_batches(traces, Traces, ["trace_id", "answer", "finish_reason"])
    return pl.concat([batch.filter(bad)["trace_id"] for batch in batches])
