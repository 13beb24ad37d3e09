"""Intervals and tests of accuracies, differences and other contrasts of arms: a bootstrap over items nested in training seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # what scipy.stats.t calls, which takes a second to import

Array = NDArray[np.float64]
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and standard error, in the units of the data, and Student's degrees of freedom."""

    estimate: float
    ci_low: float
    ci_high: float
    standard_error: float
    freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the truth is 0: below 0.05 just where the interval leaves out 0."""
        if self.standard_error == 0:
            return float(self.estimate == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.estimate) / self.standard_error))

    @property
    def minimum_detectable(self) -> float:
        """The true size that such a comparison finds (p < 0.05) in 80 % of cases (Bloom 1995, doi 10.1177/0193841X9501900504)."""
        quantiles = stdtrit(self.freedom, (1 + LEVEL) / 2) + stdtrit(self.freedom, POWER)
        return float(quantiles) * self.standard_error


@lru_cache(maxsize=8)
def item_weights(sizes: tuple[int, ...], n_resamples: int, seed: int) -> Array:
    """(n_resamples, n_items) bootstrap weights, each row summing to 1. Share them among arms: that pairs them by item.

    Items come in strata (tasks) of ``sizes``, one after the other, and each is resampled within itself.
    """
    rng = np.random.default_rng(seed)
    draws = [rng.multinomial(size, np.full(size, 1 / size), size=n_resamples) for size in sizes]
    return np.concatenate(draws, axis=1) / sum(sizes)


def contrast(
    coefficients: Sequence[float], sides: Sequence[Array], weights: Array, seed: int, sizes: Sequence[int] | None = None
) -> Interval:
    """Interval of the sum of ``coefficients`` x the mean scores of ``sides``: a mean, a difference, a trend, a slope.

    Each side is (n_seeds, n_items) scores on the same items; ``weights`` come from `item_weights`, and so do ``sizes`` of the
    strata (default: one). Every resample draws items (the same for all sides) and, within each side, training seeds: n_seeds - 1
    of n_seeds with replacement, which makes the bootstrap variance of a mean unbiased for few seeds (Rao and Wu 1988,
    doi 10.1080/01621459.1988.10478591). Drawing both counts the noise of single (seed, item) scores twice, so one of the two is
    subtracted. The interval is the estimate -+ a quantile of Student's t x the bootstrap's standard deviation, with
    Satterthwaite's degrees of freedom from the variance components: with three seeds a normal quantile would be far too short. A
    side with one seed (the base policy, say) is taken as fixed, and the interval then speaks of items only.
    """
    rng = np.random.default_rng(seed)
    scaled = [coefficient * side for coefficient, side in zip(coefficients, sides, strict=True)]
    estimate = float(sum(side.mean() for side in scaled))
    n_items = scaled[0].shape[1]
    bounds = np.cumsum(sizes or [n_items])[:-1]
    degrees = max(n_items - len(bounds) - 1, 1)
    draws, counted_twice = np.zeros(len(weights)), 0.0
    variances: list[tuple[float, int]] = []
    for side in scaled:
        n_seeds = len(side)
        by_seed = weights @ side.T  # (n_resamples, n_seeds)
        if n_seeds == 1:
            draws += by_seed[:, 0]
            continue
        picks = rng.integers(n_seeds, size=(len(weights), n_seeds - 1))
        draws += np.take_along_axis(by_seed, picks, axis=1).mean(axis=1)
        variances.append((float(side.mean(axis=1).var(ddof=1)) / n_seeds, n_seeds - 1))
        noise = sum(float((_interaction(part) ** 2).sum()) for part in np.split(side, bounds, axis=1))
        counted_twice += noise / ((n_seeds - 1) * degrees) / side.size
    per_item = sum(side.mean(axis=0) for side in scaled)
    spread = sum(float(part.var(ddof=1)) * len(part) for part in np.split(per_item, bounds) if len(part) > 1)
    variances.append((spread / n_items**2, degrees))
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return Interval(estimate, estimate, estimate, 0.0, float(degrees))
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    # The largest component alone is the least that the variance can be, whatever the subtraction leaves.
    error = math.sqrt(max(float(draws.var(ddof=1)) - counted_twice, max(variance for variance, _ in variances)))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Interval(estimate, estimate - half, estimate + half, error, freedom)


def nested_interval(arm: Array, versus: Array | None, weights: Array, seed: int, sizes: Sequence[int] | None = None) -> Interval:
    """`contrast` of an arm alone (its mean) or of an arm and ``versus`` (their difference, paired by item)."""
    sides = [arm] if versus is None else [arm, versus]
    return contrast([1, -1][: len(sides)], sides, weights, seed, sizes)


def slope(x: Sequence[float]) -> Array:
    """The coefficients of arms, in a `contrast`, that give the least-squares slope of their scores on ``x``: a trend's test."""
    centred = np.asarray(x, float) - np.mean(x)
    coefficients: Array = centred / (centred**2).sum()
    return coefficients


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): the share of families with any false finding stays below the level."""
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return [float(value) for value in adjusted]


def mcnemar(arm: Array, versus: Array) -> float:
    """P-value of McNemar's test on single answers (scores 0 or 100), with the seeds of an item as a cluster.

    Durkalski et al. 2003 (doi 10.1002/sim.1438): with one seed on each side it is the usual test without continuity correction.
    Seeds are taken as fixed, so it speaks of items only.
    """
    differences = arm.mean(axis=0) - versus.mean(axis=0)
    spread = float((differences**2).sum())
    return math.erfc(abs(float(differences.sum())) / math.sqrt(2 * spread)) if spread else 1.0


def _interaction(scores: Array) -> Array:
    """What is left of (n_seeds, n_items) scores without the means of seeds and of items."""
    left: Array = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return left


def mean_interval(values: Array, seed: int, n_resamples: int, sizes: Sequence[int] | None = None) -> Interval:
    """Interval of a plain mean over independent units (prompts), by the same bootstrap."""
    return contrast([1], [values[None, :]], item_weights(tuple(sizes or [len(values)]), n_resamples, seed), seed, sizes)
