"""Statistics of ratings: how far they repeat, agree with a reference, and depend on something else, with intervals."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefdelta.measure.intervals import LEVEL, Array

STEPS = 40


@dataclass(frozen=True)
class Rated:
    """Some traces that one judge rated, and the resamples of all prompts. A row of the arrays is a trace."""

    prompt: NDArray[np.int64]
    stratum: NDArray[np.int64]  # same prompt, generator and correctness
    tokens: Array
    levels: Array
    reference_means: Array  # the reference judge's, by criterion; NaN where there are none
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


def as_columns(*parts: Array | NDArray[np.int64]) -> Array:
    """What a statistic takes sums of: ``parts`` along a last axis."""
    return np.stack(parts, axis=-1).astype(float)


def variance_columns(ratings: Array) -> Array:
    """What `mean_squares` needs of (trace, repeat, ...) ratings, for each trace: columns whose sums it takes."""
    given = ~np.isnan(ratings)
    k = given.sum(axis=1).astype(float)
    total, squares = np.nansum(ratings, axis=1), np.nansum(ratings**2, axis=1)
    between = np.divide(total**2, k, out=np.zeros_like(total), where=k > 0)
    return as_columns((k > 0).astype(float), k, k**2, total, between, squares)


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
    """Reliability of the mean of ``n`` ratings, from that of a single one (Spearman 1910, Brown 1910), from 0 to 1.

    A single one's can be below 0 by chance, where the formula has a pole (at -1 / (n - 1)): then it is 0.
    """
    single = np.maximum(single, 0)
    result: Array = n * single / (1 + (n - 1) * single)
    return result


def noise_sd(sums: Array) -> Array:
    """Standard deviation (levels) of a single rating of the same trace."""
    _, within, _ = mean_squares(np.where(sums[..., 1:2] > sums[..., :1], sums, np.nan))
    result: Array = np.sqrt(within)
    return result


def moments(a: Array, b: Array) -> Array:
    """The columns that `kappa` and a mean difference need; traces where ``a`` or ``b`` is NaN count nothing."""
    known = ~np.isnan(a + b)
    a, b = np.where(known, a, 0), np.where(known, b, 0)
    return as_columns(known.astype(float), a, b, a**2, b**2, a * b)


def kappa(sums: Array) -> Array:
    """Cohen's kappa with quadratic weights, from `moments` of two whole levels.

    With these weights the expected disagreement is the sum of both variances and the squared difference of the means.
    """
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    expected = (aa + bb) / n - 2 * a * b / n**2
    result: Array = 1 - ((aa + bb - 2 * ab) / n) / np.where(expected > 0, expected, np.nan)
    return result


def share(sums: Array) -> Array:
    """The first column divided by the second."""
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


def with_mean(slopes: Array) -> Array:
    """Slopes of the dimensions and their mean, which stands for overall."""
    return np.concatenate([slopes, slopes.mean(axis=-1, keepdims=True)], axis=-1)


def steps(means: Array, scale: tuple[int | float, int | float] | None) -> Array:
    """``means`` as whole numbers in the same order: a fortieth of the scale (of five levels, a tenth of one), or of all means."""
    if scale:
        result: Array = np.rint(means * (STEPS / (scale[1] - scale[0])))
        return result
    ordered = np.sort(means[~np.isnan(means)])
    places = np.searchsorted(ordered, means, side="left")
    return np.where(np.isnan(means), np.nan, places * STEPS // max(1, len(ordered)))


def rank_correlation(group: Rated, a: Array, b: Array) -> tuple[float, float, float]:
    """Spearman's correlation of `steps` with its bootstrap interval. Ties have mean ranks."""
    known = ~np.isnan(a + b)
    if not known.any():
        return (np.nan, np.nan, np.nan)
    values, cell = np.unique(np.stack([a[known], b[known]]).astype(np.int64), axis=1, return_inverse=True)
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
