"""Deltas of selected pairs without the judge's noise: who picks pairs by a noisy delta picks pairs whose noise was favourable."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.audit.agreement import variance_columns
from prefdelta.audit.levels import mean_ratings, read_levels, with_overall
from prefdelta.audit.settings import DeltaCorrectionSettings
from prefdelta.measure.intervals import LEVEL, Array, item_weights
from prefdelta.pairs.build import pair_up
from prefdelta.pairs.select import candidates
from prefdelta.study.dimensions import OVERALL
from prefdelta.study.lattice import SIDES, PairSet
from prefdelta.study.selections import POOLED, draw_for_seed, parse
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_batches, read_dimensions, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs

# Kinds of selections that prefer favourable noise.
BY_DELTA = ("top", "bottom", "min", "band", *(kind for kind in POOLED if kind != "right_over_wrong"))


class DeltaCorrection(Table):
    """Mean deltas (levels) of selected pairs as judged, without the judge's noise, and by the reference judge.

    Means over the pairs of all cells of the trained arms. ``criterion`` is the selection's own, else overall. Where pairs are
    selected by the judged delta, those whose noise was favourable are preferred: ``corrected`` takes that back; for other
    selections it is ``judged``. The interval is that of ``corrected``. ``reliability``: share of the deltas' variance that is no
    noise, among the pairs that were selected from. ``reference_judge``: the same pairs' mean delta by the reference
    judge; ``reference_judge_scaled``: that on the judge's scale, with which ``judged`` and ``corrected`` can be compared. Null is
    what needs repeats, or a reference judge that rates the criterion, where there are none. Key: judge, chosen, rejected,
    selection.
    """

    judge: str
    chosen: str
    rejected: str
    selection: str
    criterion: str
    n_pairs: int = pa.Field(gt=0)
    judged: float
    corrected: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    reference_judge: float = pa.Field(nullable=True)
    reference_judge_scaled: float = pa.Field(nullable=True)
    reliability: float = pa.Field(nullable=True, ge=0, le=1)

    class Config:
        unique = ["judge", "chosen", "rejected", "selection"]


def error_variances(levels: Array) -> Array:
    """(trace, criterion) variance of the noise in a mean rating, from its repeats; NaN where fewer than two can be read."""
    _, k, _, _, between, squares = np.moveaxis(variance_columns(with_overall(levels)), -1, 0)
    variances: Array = np.divide(squares - between, (k - 1) * k, out=np.full(k.shape, np.nan), where=k > 1)
    return np.maximum(variances, 0)


def correct(
    population: pl.DataFrame, selected: pl.Series, n_resamples: int, seed: int, *, by_delta: bool = True
) -> dict[str, float | None]:
    """``judged``, ``corrected``, ``ci_low``, ``ci_high`` and ``reliability`` of the mean delta of ``selected`` pairs (ids).

    ``population`` are the pairs that they were selected from: ``pair_id``, ``prompt_id``, ``stratum``, ``delta`` and ``noise``,
    the variance of the delta's noise (null where unknown). Each delta is drawn to the mean of its stratum by the reliability R
    within strata, m + R (delta - m): the best linear guess of what further ratings of the same pair would say (Kelley 1947;
    errors in variables: Fuller 1987, section 1.1). Only pairs that were selected ``by_delta`` need that, others are unbiased.

    It is exact where true deltas and noise are normal, with equal noise for all pairs. Where a few pairs have large deltas among
    many with hardly any, it takes back too much, even more than noise had added; where the noise depends on the level, as near
    the ends of a scale, it can be off either way. It leaves the errors that all repeats share, such as a pull to the middle of
    the scale. The interval is a bootstrap over prompts with the selection as it is. What can't be known without repeats is null.
    """
    # In one order, as sums of the same numbers in another end in other digits, and a join gives any.
    frame = population.sort("pair_id").with_columns(
        mean=pl.col("delta").mean().over("stratum"), taken=pl.col("pair_id").is_in(selected.implode()).cast(pl.Float64)
    )
    delta, mean, taken = (frame[name].to_numpy() for name in ("delta", "mean", "taken"))
    noise = frame["noise"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known, away = ~np.isnan(noise), delta - mean
    columns: list[Array] = [np.ones(len(frame)), away, away**2, known.astype(float), np.where(known, noise, 0)]
    columns += [taken, taken * mean, taken * away]
    prompt = frame["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
    n_prompts = int(prompt.max()) + 1
    sums = np.stack([np.bincount(prompt, column, n_prompts) for column in columns], axis=1)

    def corrected(totals: Array) -> tuple[Array, Array]:
        n, moved, squares, n_known, noises, number, means, aways = np.moveaxis(totals, -1, 0)
        shift = moved / n  # of the strata's means, in a resample
        reliability = np.clip(1 - (noises / n_known) / (squares / n - shift**2), 0, 1)
        return means / number + shift + (reliability if by_delta else 1) * (aways / number - shift), reliability

    with np.errstate(divide="ignore", invalid="ignore"):
        estimate, reliability = corrected(sums.sum(axis=0))
        draws, _ = corrected(n_prompts * item_weights((n_prompts,), n_resamples, seed) @ sums)
    low, high = (np.nan, np.nan) if np.isnan(estimate) else np.nanpercentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    found = {"corrected": estimate, "ci_low": low, "ci_high": high, "reliability": reliability}
    known_values = {name: None if np.isnan(value) else float(value) for name, value in found.items()}
    return {"judged": float(delta[taken > 0].mean()), **known_values}


def tabulate_delta_correction(
    traces: dict[str, Path],
    ratings: dict[tuple[str, str], Path],
    pairs: dict[PairSet, Path],
    table: Path,
    *,
    settings: DeltaCorrectionSettings,
) -> None:
    """Writes the `DeltaCorrection` of every group of ``settings``.

    ``traces`` are by generator, ``ratings`` by judge and generator.
    """
    reference_judge, bootstrap = settings.reference_judge, settings.bootstrap

    @lru_cache(maxsize=16)
    def rated(judge: str, generator: str) -> pl.DataFrame:
        light, levels = read_levels(traces[generator], ratings[judge, generator])
        means, noises = mean_ratings(levels), error_variances(levels)
        criteria = read_dimensions(ratings[judge, generator]).criteria
        columns = [pl.Series(name, means[:, place]) for place, name in enumerate(criteria)]
        columns += [pl.Series(f"noise_{name}", noises[:, place]) for place, name in enumerate(criteria)]
        return light.with_columns(column.fill_nan(None) for column in columns)

    rows = []
    for group in settings.groups:
        selection = parse(draw_for_seed(group.selection, 0))
        criterion = selection.criterion or OVERALL
        populations, selected = [], []
        for number, named in enumerate(group.pair_sets):
            key = pl.format("{} {}", pl.lit(number), "pair_id").alias("pair_id")  # sets may share pairs
            sides = named.chosen, named.rejected
            chosen, rejected = (rated(named.judge, side) for side in sides)
            other = [rated(reference_judge, side) for side in sides] if reference_judge else []
            other = other if all(criterion in side for side in other) else []  # that judge may rate other dimensions
            criteria = read_dimensions(pairs[named]).criteria
            seed = f"{settings.seed}/{named.judge}"
            population = _population(chosen, rejected, other, named.selection, criterion, criteria, seed)
            populations.append(population.with_columns(key))
            selected += [batch.select(key).to_series() for batch in read_batches(pairs[named], Pairs, ["pair_id"])]
        population, taken = pl.concat(populations), pl.concat(selected)
        by_delta = selection.kind in BY_DELTA
        found = correct(population, taken, bootstrap.n_resamples, bootstrap.seed, by_delta=by_delta)
        found |= by_reference_judge(population, taken)
        rows.append({**group.model_dump(exclude={"pair_sets"}), "criterion": criterion, "n_pairs": len(taken), **found})
    write_result_table(rows_to_table(rows, DeltaCorrection), DeltaCorrection, table)


def by_reference_judge(population: pl.DataFrame, selected: pl.Series) -> dict[str, float | None]:
    """``reference_judge``: the mean delta of ``selected`` by that judge; ``reference_judge_scaled``: that on the judge's scale.

    The scale is the least-squares line of judged deltas on those of the reference judge, over the whole ``population``: the
    judge's noise, which is in its deltas only, leaves it unbiased. Both are null without a reference judge.
    """
    known = population.drop_nulls("reference_judge").sort("pair_id")
    taken = known.filter(pl.col("pair_id").is_in(selected.implode()))["reference_judge"].mean()
    judged, measured = known["delta"].to_numpy(), known["reference_judge"].to_numpy()
    if taken is None or not measured.var():
        return {"reference_judge": taken, "reference_judge_scaled": None}  # type: ignore[dict-item]
    slope = float(np.cov(measured, judged)[0, 1] / measured.var(ddof=1))
    mean = float(taken)  # type: ignore[arg-type]
    scaled = float(judged.mean()) + slope * (mean - float(measured.mean()))
    return {"reference_judge": mean, "reference_judge_scaled": scaled}


def _population(
    chosen: pl.DataFrame,
    rejected: pl.DataFrame,
    measured: list[pl.DataFrame],
    name: str,
    criterion: str,
    criteria: tuple[str, ...],
    seed: str,
) -> pl.DataFrame:
    """The pairs that the selection ``name`` is made from, as `correct` needs them, with the reference judge's delta.

    ``measured``: both sides as that judge rated them, or nothing. A selection that flips pairs flips these. Where samples are
    pooled, every one of a prompt is over every other, so deltas are drawn to 0, by the noise of deltas within prompts.
    """
    selection = parse(name)
    pairs = pair_up(chosen, rejected, selection, criteria)
    if selection.kind not in ("min", "band", *POOLED):  # which leave out pairs by their delta
        pairs = candidates(pairs, selection, seed)
    if "_stratum" not in pairs.collect_schema():
        pairs = pairs.with_columns(_stratum=pl.lit(0))
    if selection.pools:
        chosen = rejected = pl.concat([chosen, rejected])
        measured = measured and [pl.concat(measured)] * 2
    for place, (side, traces) in enumerate(zip(SIDES, (chosen, rejected), strict=True)):
        noises = traces.lazy().select(pl.col("trace_id").alias(f"{side}_trace_id"), noise=f"noise_{criterion}")
        by_judge = (measured or (chosen, rejected))[place].lazy()
        levels = by_judge.select(pl.col("trace_id").alias(f"{side}_trace_id"), level=criterion)
        ratings = noises.join(levels, on=f"{side}_trace_id").rename({"noise": f"{side}_noise", "level": f"{side}_level"})
        pairs = pairs.join(ratings, on=f"{side}_trace_id", how="left")
    sign = -1 if selection.kind == "flipped" else 1
    return pairs.select(
        "pair_id",
        "prompt_id",
        stratum=pl.col("_stratum").cast(pl.Int64),
        delta=sign * pl.col(f"delta_{criterion}"),
        noise=pl.col("chosen_noise") + pl.col("rejected_noise"),
        reference_judge=sign * (pl.col("chosen_level") - pl.col("rejected_level")) if measured else pl.lit(None, pl.Float64),
    ).collect()
