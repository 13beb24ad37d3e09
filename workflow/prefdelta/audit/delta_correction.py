"""Deltas of selected pairs without the judge's noise: who picks pairs by a noisy delta picks pairs whose noise was favourable."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdelta.audit.judge_audit import mean_ratings, read_levels, variance_columns, with_overall
from prefdelta.findings.intervals import LEVEL, Array, item_weights
from prefdelta.pairs.build import pair_up
from prefdelta.pairs.select import candidates
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.tables.findings import DeltaCorrection
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs

BY_DELTA = ("top", "bottom", "min")  # kinds of selections that prefer favourable noise


def error_variances(levels: NDArray[np.int8]) -> Array:
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
    frame = population.with_columns(
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
    output: Path | str,
    *,
    study: str,
    pairs: list[dict[str, Any]],
    reference: str | None,
    n_resamples: int,
    seed: int,
) -> None:
    """Writes the `DeltaCorrection` of every selection of pairs that some arm trains on.

    ``pairs``: ``judge``, ``chosen``, ``rejected`` and ``selection`` of the arms, with the words of their ``cells``.
    """

    @lru_cache(maxsize=16)
    def rated(judge: str, generator: str) -> pl.DataFrame:
        traces = paths.TRACES.format(study=study, generator=generator)
        light, levels = read_levels(traces, paths.RATINGS.format(study=study, judge=judge, generator=generator))
        means, noises = mean_ratings(levels), error_variances(levels)
        columns = [pl.Series(name, means[:, place]) for place, name in enumerate(CRITERIA)]
        columns += [pl.Series(f"noise_{name}", noises[:, place]) for place, name in enumerate(CRITERIA)]
        return light.with_columns(column.fill_nan(None) for column in columns)

    rows = []
    for group in pairs:
        words = {word: group[word] for word in ("judge", "chosen", "rejected", "selection")}
        selection = parse(draw_for_seed(words["selection"], 0))
        criterion = selection.criterion or "overall"
        populations, selected = [], []
        for number, cell in enumerate(group["cells"]):
            key = pl.format("{} {}", pl.lit(number), "pair_id").alias("pair_id")  # cells may share pairs
            chosen, rejected = (rated(cell["judge"], cell[side]) for side in ("chosen", "rejected"))
            other = [rated(reference, cell[side]) for side in ("chosen", "rejected")] if reference else []
            populations.append(_population(chosen, rejected, other, cell["selection"], criterion, seed).with_columns(key))
            file = paths.PAIRS.format(study=study, **cell)
            selected += [batch.select(key).to_series() for batch in read_batches(file, Pairs, ["pair_id"])]
        population, taken = pl.concat(populations), pl.concat(selected)
        found = correct(population, taken, n_resamples, seed, by_delta=selection.kind in BY_DELTA)
        by_reference = by_reference_judge(population, taken)
        rows.append({**words, "criterion": criterion, "n_pairs": len(taken), **found, **by_reference})
    write_result_table(rows_to_table(rows, DeltaCorrection), DeltaCorrection, output)


def by_reference_judge(population: pl.DataFrame, selected: pl.Series) -> dict[str, float | None]:
    """``reference``: the mean delta of ``selected`` by the reference judge; ``reference_scaled``: that on the judge's scale.

    The scale is the least-squares line of judged deltas on those of the reference, over the whole ``population``: the judge's
    noise, which is in its deltas only, leaves it unbiased. Both are null without a reference.
    """
    known = population.drop_nulls("reference")
    taken = known.filter(pl.col("pair_id").is_in(selected.implode()))["reference"].mean()
    judged, reference = known["delta"].to_numpy(), known["reference"].to_numpy()
    if taken is None or not reference.var():
        return {"reference": taken, "reference_scaled": None}  # type: ignore[dict-item]
    slope = float(np.cov(reference, judged)[0, 1] / reference.var(ddof=1))
    mean = float(taken)  # type: ignore[arg-type]
    return {"reference": mean, "reference_scaled": float(judged.mean()) + slope * (mean - float(reference.mean()))}


def _population(
    chosen: pl.DataFrame, rejected: pl.DataFrame, reference: list[pl.DataFrame], name: str, criterion: str, seed: int
) -> pl.DataFrame:
    """The pairs that the selection ``name`` is made from, as `correct` needs them, with the ``reference`` judge's delta.

    A selection that flips pairs flips these.
    """
    selection = parse(name)
    pairs = pair_up(chosen, rejected, cross_samples=selection.crosses_samples)
    if selection.kind != "min":  # which leaves out those below its threshold
        pairs = candidates(pairs, selection, seed)
    if "_stratum" not in pairs.collect_schema():
        pairs = pairs.with_columns(_stratum=pl.lit(0))
    for place, (side, traces) in enumerate((("chosen", chosen), ("rejected", rejected))):
        noises = traces.lazy().select(pl.col("trace_id").alias(f"{side}_trace_id"), noise=f"noise_{criterion}")
        levels = (
            (reference or (chosen, rejected))[place].lazy().select(pl.col("trace_id").alias(f"{side}_trace_id"), level=criterion)
        )
        ratings = noises.join(levels, on=f"{side}_trace_id").rename({"noise": f"{side}_noise", "level": f"{side}_level"})
        pairs = pairs.join(ratings, on=f"{side}_trace_id", how="left")
    sign = -1 if selection.kind == "flipped" else 1
    return pairs.select(
        "pair_id",
        "prompt_id",
        stratum=pl.col("_stratum").cast(pl.Int64),
        delta=sign * pl.col(f"delta_{criterion}"),
        noise=pl.col("chosen_noise") + pl.col("rejected_noise"),
        reference=sign * (pl.col("chosen_level") - pl.col("rejected_level")) if reference else pl.lit(None, pl.Float64),
    ).collect()
