"""The audit of judges: how far ratings repeat, agree with a reference, and depend on length or on the judge's own family."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdelta.findings.intervals import LEVEL, Array, item_weights
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA, DIMENSIONS, LEVELS
from prefdelta.tables.findings import JudgeAudit
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Ratings, Traces

CURVE = range(1, 11)  # numbers of ratings that the Spearman-Brown curve shows
NOT_ASKED, MISSING = -1, 0  # in place of a level
_LIGHT = ["trace_id", "prompt_id", "generator", "sample", "correct", "n_tokens"]


def read_levels(traces: Path | str, ratings: Path | str) -> tuple[pl.DataFrame, NDArray[np.int8]]:
    """Traces without texts, by id, and all their ratings: (trace, repeat, dimension) levels, `MISSING` or `NOT_ASKED`."""
    light = pl.concat(list(read_batches(traces, Traces, _LIGHT))).sort("trace_id")
    places = light.select("trace_id").with_row_index("row")
    number = pl.col("dimension").cast(pl.Enum(DIMENSIONS)).to_physical().alias("number")
    parts = [
        batch.select("trace_id", "repeat", number, pl.col("rating").fill_null(MISSING))
        .join(places, on="trace_id", maintain_order="left")
        .drop("trace_id")
        for batch in read_batches(ratings, Ratings)
    ]
    found = pl.concat(parts)
    repeats = 1 + int(found["repeat"].max() or 0)  # type: ignore[arg-type]
    levels = np.full((len(light), repeats, len(DIMENSIONS)), NOT_ASKED, np.int8)
    levels[found["row"].to_numpy(), found["repeat"].to_numpy(), found["number"].to_numpy()] = found["rating"].to_numpy()
    return light, levels


def with_overall(levels: NDArray[np.int8]) -> Array:
    """(trace, repeat, criterion) ratings: the five dimensions and their mean, NaN where one can't be read."""
    readable = np.where(levels > MISSING, levels, np.nan)
    return np.concatenate([readable, readable.mean(axis=2, keepdims=True)], axis=2)


def mean_ratings(levels: NDArray[np.int8]) -> Array:
    """(trace, criterion) means over readable repeats, overall their mean, as in pairs; NaN where there is none."""
    given = levels > MISSING
    sums, numbers = np.where(given, levels, 0).sum(axis=1), given.sum(axis=1)
    means = np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)
    return np.concatenate([means, means.mean(axis=1, keepdims=True)], axis=1)


@dataclass(frozen=True)
class Rated:
    """Some traces that one judge rated, and the resamples of all prompts. A row of the arrays is a trace."""

    prompt: NDArray[np.int64]
    stratum: NDArray[np.int64]  # same prompt, generator and correctness
    tokens: Array
    levels: NDArray[np.int8]
    reference: Array  # means by criterion, NaN where there is none
    own: Array  # 1 where the trace is of the judge's own family, else 0; NaN where that is unknown
    weights: Array

    def take(self, rows: NDArray[np.bool_]) -> "Rated":
        kept: Any = {name: values[rows] for name, values in vars(self).items() if name != "weights"}
        return replace(self, **kept)

    def sums(self, columns: Array) -> Array:
        """(prompt, ...) sums of ``columns`` (trace, ...) within each prompt."""
        flat = columns.reshape(len(columns), -1)
        n = self.weights.shape[1]
        by_prompt: Array = np.stack([np.bincount(self.prompt, column, n).astype(float) for column in flat.T], axis=1)
        return by_prompt.reshape(n, *columns.shape[1:])

    def intervals(self, statistic: Callable[[Array], Array], columns: Array) -> Array:
        """(3, ...) estimate, low and high of what ``statistic`` makes of sums over traces: percentiles of the bootstrap."""
        by_prompt = self.sums(columns)
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # of percentiles where nothing is known
            estimate = statistic(by_prompt.sum(axis=0))
            draws = statistic(np.tensordot(self.weights, by_prompt, axes=1))
            low, high = np.nanpercentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
        unknown = np.isnan(estimate)
        return np.stack([estimate, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)])


def _columns(*parts: Array | NDArray[np.int64]) -> Array:
    return np.stack(parts, axis=-1).astype(float)


def variance_columns(ratings: Array) -> Array:
    """What `mean_squares` needs of (trace, repeat, ...) ratings, for each trace: columns whose sums it takes."""
    given = ~np.isnan(ratings)
    k = given.sum(axis=1).astype(float)
    total, squares = np.nansum(ratings, axis=1), np.nansum(ratings**2, axis=1)
    between = np.divide(total**2, k, out=np.zeros_like(total), where=k > 0)
    return _columns((k > 0).astype(float), k, k**2, total, between, squares)


def mean_squares(sums: Array) -> tuple[Array, Array, Array]:
    """Mean squares between and within traces, and the number of ratings of a trace (Shrout and Fleiss 1979, case 1).

    Where traces differ in their number of readable ratings, it is the usual average for unequal groups.
    """
    traces, ratings, squared, total, between, squares = np.moveaxis(sums, -1, 0)
    within = (squares - between) / (ratings - traces)
    among = (between - total**2 / ratings) / (traces - 1)
    return among, within, (ratings - squared / ratings) / (traces - 1)


def icc(sums: Array) -> Array:
    """ICC(1): the share of a single rating's variance that lies between traces (doi 10.1037/0033-2909.86.2.420)."""
    among, within, k = mean_squares(np.where(sums[..., 1:2] > sums[..., :1], sums, np.nan))
    result: Array = (among - within) / (among + (k - 1) * within)
    return result


def spearman_brown(single: Array, n: float) -> Array:
    """Reliability of the mean of ``n`` ratings, from that of a single one (Spearman 1910, Brown 1910)."""
    result: Array = n * single / (1 + (n - 1) * single)
    return result


def _noise(sums: Array) -> Array:
    """Standard deviation (levels) of a single rating of the same trace."""
    _, within, _ = mean_squares(np.where(sums[..., 1:2] > sums[..., :1], sums, np.nan))
    result: Array = np.sqrt(within)
    return result


def moments(a: Array, b: Array) -> Array:
    """The columns that `kappa` and a mean difference need; traces where ``a`` or ``b`` is NaN count nothing."""
    known = ~np.isnan(a + b)
    a, b = np.where(known, a, 0), np.where(known, b, 0)
    return _columns(known.astype(float), a, b, a**2, b**2, a * b)


def kappa(sums: Array) -> Array:
    """Cohen's kappa with quadratic weights, from `moments` of two whole levels.

    With these weights the expected disagreement is the sum of both variances and the squared difference of the means.
    """
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    expected = (aa + bb) / n - 2 * a * b / n**2
    result: Array = 1 - ((aa + bb - 2 * ab) / n) / np.where(expected > 0, expected, np.nan)
    return result


def _share(sums: Array) -> Array:
    result: Array = sums[..., 0] / sums[..., 1]
    return result


def whole(means: Array) -> Array:
    """Means as the nearest levels, halves upwards."""
    result: Array = np.floor(means + 0.5)
    return result


def slope(sums: Array) -> Array:
    """Slope of y on x within strata, from (..., stratum, 5) sums of 1, x, y, x^2 and x y."""
    n, x, y, xx, xy = np.moveaxis(np.where(sums[..., :1] > 0, sums, np.nan), -1, 0)
    spread = np.nansum(xx - x * x / n, axis=-1)
    result: Array = np.nansum(xy - x * y / n, axis=-1) / np.where(spread > 1e-9, spread, np.nan)
    return result


def _with_mean(slopes: Array) -> Array:
    """Slopes of the five dimensions and their mean, which stands for overall."""
    return np.concatenate([slopes, slopes.mean(axis=-1, keepdims=True)], axis=-1)


def _bias_columns(group: Rated, x: Array) -> Array:
    """Columns for the `slope` of rating minus reference on ``x`` among traces of the same level by the reference.

    The same level, because ratings that are pulled to the middle of the scale would else look like a bias against whatever goes
    with quality.
    """
    gap = mean_ratings(group.levels)[:, :-1] - group.reference[:, :-1]
    x = np.broadcast_to(x[:, None], gap.shape)
    known = ~np.isnan(gap + x)
    gap, x = np.where(known, gap, 0), np.where(known, x, 0)
    columns = _columns(known.astype(float), x, gap, x * x, x * gap)
    at = whole(group.reference[:, :-1])[..., None] == np.asarray(LEVELS)  # (trace, dimension, level)
    result: Array = at[..., None] * columns[:, :, None, :]
    return result


def _within_strata(group: Rated, x: Array) -> Array:
    """Columns for the `slope` of the rating itself on ``x`` among traces of a generator and prompt that are equally correct."""
    y = mean_ratings(group.levels)[:, :-1]
    _, stratum = np.unique(group.stratum, return_inverse=True)
    known = ~np.isnan(y)
    x, y = np.where(known, x[:, None], 0), np.where(known, y, 0)

    def centred(values: Array) -> Array:
        columns = []
        for column, counted in zip(values.T, known.T, strict=True):
            mean = np.bincount(stratum, column) / np.maximum(np.bincount(stratum, counted), 1)
            columns.append(np.where(counted, column - mean[stratum], 0))
        return np.stack(columns, axis=1)

    x, y = centred(x), centred(y)
    return _columns(known.astype(float), np.zeros_like(x), np.zeros_like(x), x * x, x * y)[:, :, None, :]


def rank_correlation(group: Rated, a: Array, b: Array) -> tuple[float, float, float]:
    """Spearman's correlation with its bootstrap interval. Values are taken to a tenth of a level, ties have mean ranks."""
    known = ~np.isnan(a + b)
    if not known.any():
        return (np.nan, np.nan, np.nan)
    scaled = [np.rint(10 * values[known]).astype(np.int64) for values in (a, b)]
    values, cell = np.unique(np.stack(scaled), axis=1, return_inverse=True)
    n, n_cells = group.weights.shape[1], values.shape[1]
    counts = np.bincount(group.prompt[known] * n_cells + cell.ravel(), minlength=n * n_cells)
    by_prompt = counts.reshape(n, n_cells).astype(np.float32)
    sides = [np.unique(side, return_inverse=True)[1].ravel() for side in values]

    def correlation(share: Array) -> Array:
        """Of (resample, cell) shares of traces."""
        ranks = []
        for side in sides:
            order = np.argsort(side, kind="stable")
            starts = np.flatnonzero(np.diff(side[order], prepend=-1))
            sizes = np.add.reduceat(share[:, order], starts, axis=1)
            ranks.append((np.cumsum(sizes, axis=1) - sizes / 2)[:, side] - 0.5)  # their mean is 0
        covariance = [(share * one * other).sum(axis=1) for one, other in (ranks, ranks[:1] * 2, ranks[1:] * 2)]
        spread = np.sqrt(covariance[1] * covariance[2])
        result: Array = covariance[0] / np.where(spread > 1e-9, spread, np.nan)
        return result

    whole_sample = by_prompt.sum(axis=0, keepdims=True).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = correlation(whole_sample / whole_sample.sum())[0]
        drawn = (group.weights.astype(np.float32) @ by_prompt).astype(float)
        draws = correlation(drawn / drawn.sum(axis=1, keepdims=True))
    if np.isnan(estimate):
        return (np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(estimate), float(low), float(high)


def _requests(judge: dict[str, Any], n: int) -> int | None:
    """Requests for ``n`` ratings of a trace; None for a judge that is not asked."""
    if judge["choices_per_request"] is None:
        return None
    return -(-n // int(judge["choices_per_request"])) * (len(DIMENSIONS) if judge["separate_dimensions"] else 1)


def _audit(group: Rated, judge: dict[str, Any], *, whole_judge: bool, has_reference: bool) -> list[dict[str, Any]]:
    """The rows of one judge on some traces; the curve, shares of levels and slopes of ``whole_judge`` only."""
    rows: list[dict[str, Any]] = []
    repeats = group.levels.shape[1]

    def add(statistic: str, intervals: Array, n: Array, n_ratings: int | None = None) -> None:
        for criterion, interval, number in zip(CRITERIA, intervals.T, n, strict=False):
            estimate, low, high = (None if np.isnan(value) else float(value) for value in interval)
            if estimate is not None or whole_judge:
                row = {"dimension": criterion, "statistic": statistic, "n_ratings": n_ratings, "n": int(number)}
                row["requests"] = n_ratings and _requests(judge, n_ratings)
                rows.append({**row, "estimate": estimate, "ci_low": low, "ci_high": high})

    ratings = with_overall(group.levels)
    variances = variance_columns(ratings)
    rated = variances[..., 0].sum(axis=0)
    single = group.intervals(icc, variances)
    add("icc", single, rated, 1)
    if repeats > 1:
        add("icc", group.intervals(lambda sums: spearman_brown(icc(sums), repeats), variances), rated, repeats)
    add("noise_sd", group.intervals(_noise, variances), rated, 1)

    asked = (group.levels > NOT_ASKED).all(axis=2, keepdims=True)
    absent = np.concatenate([group.levels == MISSING, (group.levels == MISSING).any(axis=2, keepdims=True)], axis=2)
    missing = group.intervals(_share, _columns((absent & asked).sum(axis=1), np.broadcast_to(asked, absent.shape).sum(axis=1)))
    # Of none in n, resamples know nothing: then the bound is that of n independent prompts (Clopper and Pearson 1934).
    bound = 1 - ((1 - LEVEL) / 2) ** (1 / max(1, len(np.unique(group.prompt[np.any(asked, axis=(1, 2))]))))
    missing[2] = np.where(missing[0] == 0, bound, missing[2])
    add("missing", missing, np.full(len(CRITERIA), asked.sum()))

    means = mean_ratings(group.levels)
    if has_reference:
        exact, near = moments(means, group.reference), moments(whole(means), whole(group.reference))
        both = exact[..., 0].sum(axis=0)
        add("kappa", group.intervals(kappa, near), both)
        add("bias", group.intervals(lambda sums: (sums[..., 1] - sums[..., 2]) / sums[..., 0], exact), both)
        ranked = [rank_correlation(group, means[:, place], group.reference[:, place]) for place in range(len(CRITERIA))]
        add("spearman", np.asarray(ranked).T, both)
    if not whole_judge:
        return rows
    for n in CURVE:
        add("spearman_brown", spearman_brown(single, n), rated, n)
    for level in LEVELS:
        at = _columns((group.levels == level).sum(axis=1), (group.levels > MISSING).sum(axis=1))
        add(f"share_of_{level}", group.intervals(_share, at), (group.levels > MISSING).sum(axis=(0, 1)))
    spread = float(group.tokens.std())
    add(
        "length_slope",
        group.intervals(lambda sums: spread * _with_mean(slope(sums)), _within_strata(group, group.tokens)),
        rated,
    )
    if has_reference:
        add(
            "length_bias",
            group.intervals(lambda sums: spread * _with_mean(slope(sums)), _bias_columns(group, group.tokens)),
            both,
        )
        if len(np.unique(group.own[~np.isnan(group.own)])) > 1:
            add("family_bias", group.intervals(lambda sums: _with_mean(slope(sums)), _bias_columns(group, group.own)), both)
    return rows


def tabulate_judge_audit(
    output: Path | str,
    *,
    study: str,
    judges: list[dict[str, Any]],
    families: dict[str, str | None],
    reference: str | None,
    n_resamples: int,
    seed: int,
) -> None:
    """Writes the `JudgeAudit` of every judge, over all its generators and for each.

    ``judges``: ``judge``, its ``generators`` (name -> draws, which are pooled), ``choices_per_request``, ``separate_dimensions``
    and the ``family`` of its model; ``families``: generator -> family of its model. Intervals are bootstrap percentiles over
    prompts.
    """
    referred: dict[str, tuple[pl.DataFrame, Array]] = {}
    rows = []
    for settings in judges:
        judge = settings["judge"]
        frames, levels, references, owners, owns = [], [], [], [], []
        for name, draws in settings["generators"].items():
            for draw in draws:
                traces = paths.TRACES.format(study=study, generator=draw)
                light, given = read_levels(traces, paths.RATINGS.format(study=study, judge=judge, generator=draw))
                if reference and draw not in referred:
                    other = paths.RATINGS.format(study=study, judge=reference, generator=draw)
                    referred[draw] = (light, mean_ratings(read_levels(traces, other)[1]))
                frames.append(light)
                levels.append(given)
                references.append(referred[draw][1] if reference else np.full((len(light), len(CRITERIA)), np.nan))
                owners += [name] * len(light)
                known = settings["family"] and families[name]
                owns.append(np.full(len(light), float(families[name] == settings["family"]) if known else np.nan))
        frame = pl.concat(frames).with_columns(owner=pl.Series(owners))
        prompt = frame["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
        stratum = frame.select(pl.struct("prompt_id", "generator", "correct").rank("dense")).to_series().to_numpy()
        repeats = max(given.shape[1] for given in levels)
        padded = [np.pad(given, ((0, 0), (0, repeats - given.shape[1]), (0, 0)), constant_values=NOT_ASKED) for given in levels]
        n_prompts = int(prompt.max()) + 1
        weights = n_prompts * item_weights((n_prompts,), n_resamples, seed)  # how often each prompt is drawn
        group = Rated(
            prompt,
            stratum.astype(np.int64),
            frame["n_tokens"].to_numpy().astype(float),
            np.concatenate(padded),
            np.concatenate(references),
            np.concatenate(owns),
            weights,
        )
        has_reference = reference is not None and judge != reference
        found = _audit(group, settings, whole_judge=True, has_reference=has_reference)
        rows += [{"judge": judge, "generator": None, **row} for row in found]
        for name in settings["generators"]:
            part = group.take((frame["owner"] == name).to_numpy())
            found = _audit(part, settings, whole_judge=False, has_reference=has_reference)
            rows += [{"judge": judge, "generator": name, **row} for row in found]
    write_result_table(rows_to_table(rows, JudgeAudit), JudgeAudit, output)
