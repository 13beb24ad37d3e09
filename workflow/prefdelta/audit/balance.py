"""Balance: whether arms that are compared differ in more than what they are to differ in: prompts and traces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.audit.settings import BalancedArm, BalanceSettings
from prefdelta.measure.intervals import Array
from prefdelta.pairs.off_policy import logp_per_token
from prefdelta.study.dimensions import Dimensions
from prefdelta.study.lattice import SIDES, Cell, PairSet
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_batches, read_dimensions, read_result_csv, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs, Traces

IMBALANCE = 0.1  # a standardised mean difference above it is not negligible (Austin 2009, doi 10.1002/sim.3697)
ROUNDING = 1e-9  # what differs by less is equal but for floating point


def covariates(rated: Dimensions) -> dict[str, str]:
    """name -> unit of what pairs by a judge of these dimensions may differ in."""
    return {
        "prompt_difficulty": "share",
        "log_length_ratio": "log",
        **{f"{side}_tokens": "tokens" for side in SIDES},
        **{f"{side}_{name}": "share" for name in ("correct", "well_formed") for side in SIDES},
        **{f"{side}_logp": "nats" for side in SIDES},
        **{f"{side}_{criterion}": "levels" for side in (*SIDES, "delta") for criterion in rated.criteria},
    }


class Balance(Table):
    """Means of what compared arms may differ in, besides what they are to differ in. Key: experiment, arm, versus, covariate.

    ``smd`` is the standardised mean difference, (mean - mean_versus) / sqrt of the mean of both variances: null where nothing
    varies, but the means differ. ``imbalanced``: its size is above 0.1, or it is null. ``unit`` is that of the means: ``share``
    (0 to 1), ``tokens``, ``levels``, ``nats``, or ``log`` (natural, of chosen by rejected tokens). ``prompt_difficulty`` is the
    share of wrong answers to a pair's prompt; a trace is ``well_formed`` that ended by itself and whose answer could be
    extracted. ``chosen_logp`` and ``rejected_logp``: log-probability of a token under the untuned policy, by a trace's mean (the
    lower, the more off-policy); left out where it is not stored of every trace. Ratings are compared where both arms' judges
    give them. Numbers of pairs, and of their distinct prompts, are those of one seed, on average; a pair with an answer that
    could not be graded is left out. Of pairs none of which is graded, as where no prompt has a right answer, all count, and what
    correctness tells is left out.
    """

    experiment: str
    arm: str
    versus: str
    covariate: str
    unit: str = pa.Field(isin=["share", "log", "tokens", "nats", "levels"])
    mean: float
    mean_versus: float
    smd: float = pa.Field(nullable=True)
    imbalanced: bool
    n_pairs: int = pa.Field(gt=0)
    n_pairs_versus: int = pa.Field(gt=0)
    n_prompts: int = pa.Field(gt=0)
    n_prompts_versus: int = pa.Field(gt=0)

    class Config:
        unique = ["experiment", "arm", "versus", "covariate"]


@dataclass(frozen=True)
class Moments:
    """Mean and variance (divided by n, so that of a share p it is p (1 - p)) of each of their `covariates` among ``n`` pairs.

    NaN of what is not known.
    """

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


def tabulate_balance(
    traces: dict[str, Path],
    pairs: dict[PairSet, Path],
    references: dict[tuple[str, int, str, str], Path],
    table: Path,
    *,
    settings: BalanceSettings,
) -> None:
    """Writes the `Balance` of every arm of ``settings`` with each of its controls. ``traces`` are by generator, ``references`` by
    policy, length limit, arithmetic and generator.

    An arm's means and variances are over the pair sets of its cells (one for each seed), all seeds with equal weight. How
    difficult a prompt is, is the same number on both sides of a comparison: the share of wrong answers to it, in all traces by
    all generators that occur in either arm.
    """

    def moments(arm: BalancedArm, writers: list[str]) -> Moments:
        files = tuple(traces[name] for name in writers)
        return mixture([_moments(pairs[cell.pairs], files, logps(arm, cell)) for cell in arm.cells])

    def logps(arm: BalancedArm, cell: Cell) -> tuple[tuple[Path, ...], int]:
        if arm.references is None:
            return (), 0
        limit, arithmetic = arm.references
        return tuple(references[arm.policy, limit, arithmetic, name] for name in (cell.chosen, cell.rejected)), limit

    def n_prompts(arm: BalancedArm) -> int:
        return round(np.mean([_n_prompts(pairs[cell.pairs]) for cell in arm.cells]))

    rows: list[dict[str, Any]] = []
    for experiment in settings.experiments:
        by_name = {arm.arm: arm for arm in experiment.arms}
        for arm in experiment.arms:
            for versus in dict.fromkeys(arm.versus):
                sides = arm, by_name[versus]
                writers = sorted({name for side in sides for cell in side.cells for name in (cell.chosen, cell.rejected)})
                own, other = (moments(side, writers) for side in sides)
                common: dict[str, Any] = {"experiment": experiment.experiment, "arm": arm.arm, "versus": versus}
                common |= {"n_pairs": round(own.n / len(arm.cells)), "n_pairs_versus": round(other.n / len(sides[1].cells))}
                common |= {"n_prompts": n_prompts(arm), "n_prompts_versus": n_prompts(sides[1])}
                units, names_versus = (_covariates(pairs[side.cells[0].pairs]) for side in sides)
                places = {name: place for place, name in enumerate(names_versus)}
                for place, (covariate, unit) in enumerate(units.items()):
                    there = places.get(covariate)
                    if there is None or math.isnan(own.mean[place] + other.mean[there]):
                        continue
                    mean, mean_versus = float(own.mean[place]), float(other.mean[there])
                    smd = standardised_difference(mean, mean_versus, float(own.variance[place]), float(other.variance[there]))
                    row = {"covariate": covariate, "unit": unit, "mean": mean, "mean_versus": mean_versus, "smd": smd}
                    rows.append(common | row | {"imbalanced": smd is None or abs(smd) > IMBALANCE})
    write_result_table(rows_to_table(rows, Balance), Balance, table)


@cache
def _covariates(pairs: Path) -> dict[str, str]:
    """`covariates` of a pair set, which many comparisons share: looking at its table reads all of it."""
    return covariates(read_dimensions(pairs))


@cache
def _moments(pairs: Path, traces: tuple[Path, ...], references: tuple[tuple[Path, ...], int]) -> Moments:
    """Of one pair set. Its traces are in any of the files ``traces``: of a flipped pair, the chosen one is the other side's.

    So are they in ``references``: files, and the length limit of these.
    """
    difficulty = _difficulty(traces)
    logps = _logps(*references)
    malformed = pl.concat([_malformed(file) for file in traces]).implode()
    by_side = (f"{side}_{name}" for side in SIDES for name in ("well_formed", "logp"))
    computed = {"prompt_difficulty", "log_length_ratio", *by_side}
    names = list(_covariates(pairs))
    ids = ["pair_id", "prompt_id", "chosen_trace_id", "rejected_trace_id"]
    chosen, rejected = (pl.col(f"{side}_tokens").clip(lower_bound=1) for side in SIDES)
    parts = []
    for batch in _graded(pairs, [*ids, *(name for name in names if name not in computed)]):
        frame = batch.join(difficulty, on="prompt_id", how="left", maintain_order="left").with_columns(
            log_length_ratio=(chosen / rejected).log(),
            chosen_well_formed=~pl.col("chosen_trace_id").is_in(malformed),
            rejected_well_formed=~pl.col("rejected_trace_id").is_in(malformed),
        )
        for side in SIDES:
            own = logps.select(pl.col("trace_id").alias(f"{side}_trace_id"), pl.col("logp").alias(f"{side}_logp"))
            frame = frame.join(own, on=f"{side}_trace_id", how="left")
        values = frame.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy()
        parts.append(Moments(len(values), values.mean(axis=0), values.var(axis=0)))
    return mixture(parts, [part.n for part in parts])


def _graded(pairs: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    """The pairs whose answers are both graded, in batches; all pairs where there is none."""
    none = True
    for batch in read_batches(pairs, Pairs, columns):
        graded = batch.drop_nulls(["chosen_correct", "rejected_correct"])
        if not graded.is_empty():
            none = False
            yield graded
    if none:
        yield from read_batches(pairs, Pairs, columns)


@cache
def _logps(references: tuple[Path, ...], max_length: int) -> pl.DataFrame:
    """`logp_per_token`, of no trace where there are no ``references``."""
    nothing = pl.DataFrame(schema={"trace_id": pl.String, "logp": pl.Float64})
    return logp_per_token(references, max_length) if references else nothing


@cache
def _n_prompts(pairs: Path) -> int:
    """Distinct prompts of a pair set."""
    found = [batch["prompt_id"].unique() for batch in read_batches(pairs, Pairs, ["pair_id", "prompt_id"])]
    return pl.concat(found).n_unique()


@cache
def _difficulty(traces: tuple[Path, ...]) -> pl.DataFrame:
    """``prompt_id`` and ``prompt_difficulty`` of all prompts that were answered."""
    by_prompt = pl.concat([_answers(file) for file in traces]).group_by("prompt_id").agg(pl.col("n", "wrong").sum())
    return by_prompt.select("prompt_id", prompt_difficulty=pl.col("wrong") / pl.col("n"))


@cache
def _answers(traces: Path) -> pl.DataFrame:
    """The numbers of graded answers, and of wrong ones, by prompt."""
    batches = read_batches(traces, Traces, ["trace_id", "prompt_id", "correct"])
    graded = pl.col("correct")
    counted = [batch.group_by("prompt_id").agg(n=graded.count(), wrong=(~graded).sum()) for batch in batches]
    return pl.concat(counted).group_by("prompt_id").agg(pl.col("n", "wrong").sum())


@cache
def _malformed(traces: Path) -> pl.Series:
    """The traces that did not end by themselves, or whose answer could not be extracted."""
    bad = pl.col("answer").is_null() | (pl.col("finish_reason") != "stop")
    batches = read_batches(traces, Traces, ["trace_id", "answer", "finish_reason"])
    return pl.concat([batch.filter(bad)["trace_id"] for batch in batches])


def plot_balance(table: Path, figure: Path) -> None:
    """Plots the size of every standardised mean difference of compared arms (a love plot), a panel for each experiment."""
    from matplotlib import pyplot

    from prefdelta.measure import plotting

    balance = read_result_csv(table, Balance)
    experiments = balance.partition_by("experiment", maintain_order=True)
    n_rows = -(-len(experiments) // 4) or 1
    plot, grid = pyplot.subplots(n_rows, 4, figsize=(17, 6.5 * n_rows), squeeze=False, layout="constrained")
    names = balance["covariate"].unique(maintain_order=True).to_list()
    for place, panel in enumerate(grid.flat):
        if place >= len(experiments):
            panel.set_axis_off()
            continue
        comparisons = experiments[place].partition_by("arm", "versus", maintain_order=True)
        for index, rows in enumerate(comparisons):
            marker = "os^Dv"[index // len(plotting.COLOURS) % 5]
            y = [names.index(name) for name in rows["covariate"]]
            # Where nothing varies, but the means differ, the difference is beyond any number.
            sizes = rows["smd"].abs().fill_null(10).clip(upper_bound=10)
            name = f"{rows['arm'][0]} against {rows['versus'][0]}"
            panel.plot(sizes, y, marker, ms=4, alpha=0.8, color=plotting.colour(index), label=name)
        panel.axvline(IMBALANCE, color="black", lw=0.8, ls=":")
        panel.set_xscale("symlog", linthresh=IMBALANCE)
        panel.set_xticks([0, IMBALANCE, 1, 10], ["0", str(IMBALANCE), "1", "10"])
        panel.set_yticks(range(len(names)), names if place % 4 == 0 else [])
        panel.set(xlim=(-0.005, 12), ylim=(len(names) - 0.5, -0.5), title=experiments[place]["experiment"][0])
        panel.set_xlabel("size of the standardised mean difference")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=6)
    plotting.save(
        plot,
        figure,
        title="In what compared arms differ",
        question="In what else than their deltas do the arms differ that are compared?",
        answers={f"Standardised mean differences whose size is above {IMBALANCE}:": _answer(balance)},
        caveat=f"{IMBALANCE} is the customary line (Austin 2009), not a test: two random sets of n pairs differ by about the "
        "square root of 2/n in any covariate. Arms of different generators are meant to differ in most of these, and ratings by "
        "different judges are not on one scale. Where nothing varies within both arms, a difference cannot be standardised: it "
        "is plotted at 10, as are larger ones.",
    )


def _answer(balance: pl.DataFrame) -> list[str]:
    """A sentence for each comparison: in which covariates but deltas are its arms imbalanced?"""
    lines = []
    comparisons = balance.partition_by("experiment", "arm", "versus", as_dict=True, maintain_order=True)
    for (experiment, arm, versus), rows in comparisons.items():
        differing = rows.filter(pl.col("imbalanced"), ~pl.col("covariate").str.starts_with("delta_"))
        said = [
            f"{row['covariate']} ({'nothing varies' if row['smd'] is None else format(row['smd'], '+.2f')})"
            for row in differing.iter_rows(named=True)
        ]
        lines.append(f"{experiment}: **{arm}** against {versus}: {', '.join(said) or 'balanced'}.")
    return lines
