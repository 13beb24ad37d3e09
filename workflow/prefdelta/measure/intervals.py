"""Intervals and tests of accuracies, differences and other contrasts of arms: a bootstrap over items nested in training seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, nctdtrinc, stdtr, stdtrit  # what scipy.stats.t calls, which takes a second to import

Array = NDArray[np.float64]
LEVEL = 0.95
NOTHING = 1e-9  # points: what rounding makes of no difference at all
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and standard error, in the units of the data, and Student's degrees of freedom."""

    estimate: float
    ci_low: float
    ci_high: float
    standard_error: float
    freedom: float

    @classmethod
    def student(cls, estimate: float, error: float, freedom: float) -> "Interval":
        """The interval of an ``estimate`` with a standard ``error`` that has so many degrees of ``freedom``."""
        half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
        return cls(estimate, estimate - half, estimate + half, error, freedom)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Interval":
        """The interval that a table's ``row`` holds."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    @property
    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the truth is 0: below 0.05 just where the interval leaves out 0."""
        if self.standard_error == 0:
            return float(self.estimate == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.estimate) / self.standard_error))

    def p_equivalent(self, within: float) -> float:
        """Of the hypothesis that the truth is ``within`` or more away from 0, by two one-sided tests (Schuirmann 1987,
        doi 10.1007/BF01068419): below 0.05 just where the 90 % interval lies within."""
        room = within - abs(self.estimate)
        return float(stdtr(self.freedom, -room / self.standard_error)) if self.standard_error else float(room <= 0)

    def at(self, level: float) -> tuple[float, float]:
        """The bounds of the interval at another ``level``."""
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.standard_error
        return self.estimate - half, self.estimate + half

    def minimum_detectable(self, error: float = 1 - LEVEL) -> float:
        """The true size that such a comparison finds (p < ``error``) in 80 % of cases.

        By the noncentral t distribution (Bloom 1995, doi 10.1177/0193841X9501900504, takes quantiles of Student's instead, which
        are too small at few degrees of freedom and strict levels), and without the bias that a root of a variance has.
        """
        quantile = stdtrit(self.freedom, 1 - error / 2)
        bias = math.sqrt(2 / self.freedom) * math.exp(gammaln((self.freedom + 1) / 2) - gammaln(self.freedom / 2))
        return float(nctdtrinc(self.freedom, 1 - POWER, quantile)) / bias * self.standard_error


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
    """Interval of the sum of ``coefficients`` x the mean scores of ``sides``: a mean, a difference.

    Each side is (n_seeds, n_items) scores on the same items; ``weights`` come from `item_weights`, and so do ``sizes`` of the
    strata (default: one). Every resample draws items (the same for all sides) and, within each side, training seeds: n_seeds - 1
    of n_seeds with replacement, which makes the bootstrap variance of a mean unbiased for few seeds (Rao and Wu 1988,
    doi 10.1080/01621459.1988.10478591). So the noise of single (seed, item) scores is counted three times, once by the seeds and
    twice by the items (what is drawn of n seeds has 2 / n as the sum of its squared weights): two of these are subtracted. The
    interval is the estimate -+ a quantile of Student's t x the bootstrap's standard deviation, with Satterthwaite's degrees of
    freedom from the variance components: with three seeds a normal quantile would be far too short. A side with one seed (the
    base policy, say) is taken as fixed, and the interval then speaks of items only.
    """
    rng = np.random.default_rng(seed)
    scaled = [coefficient * side for coefficient, side in zip(coefficients, sides, strict=True)]
    estimate = float(sum(side.mean() for side in scaled))
    n_items = scaled[0].shape[1]
    degrees = item_freedom(n_items, sizes)
    draws, noise = np.zeros(len(weights)), 0.0
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
        noise += answer_noise(side, sizes)
    per_item: Array = np.sum([side.mean(axis=0) for side in scaled], axis=0)
    variances.append((float(item_variance(per_item, sizes)), degrees))
    largest = max(variance for variance, _ in variances)
    if largest < NOTHING**2:
        estimate = estimate if abs(estimate) > NOTHING else 0.0
        return Interval(estimate, estimate, estimate, 0.0, float(degrees))
    # The largest component alone is the least that the variance can be, whatever the subtraction leaves.
    variance = max(float(draws.var(ddof=1)) - 2 * noise, largest)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in variances)
    return Interval.student(estimate, math.sqrt(variance), freedom)


def nested_interval(arm: Array, versus: Array | None, weights: Array, seed: int, sizes: Sequence[int] | None = None) -> Interval:
    """`contrast` of an arm alone (its mean) or of an arm and ``versus`` (their difference, paired by item)."""
    sides = [arm] if versus is None else [arm, versus]
    return contrast([1, -1][: len(sides)], sides, weights, seed, sizes)


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


def item_freedom(n_items: int, sizes: Sequence[int] | None) -> int:
    """Degrees of freedom of `item_variance`."""
    return max(n_items - len(sizes or [n_items]), 1)


def item_variance(scores: Array, sizes: Sequence[int] | None) -> Array:
    """What the choice of items adds to the variance of the means of (..., n_items) ``scores``, from items within strata."""
    parts = np.split(scores, np.cumsum(sizes or [scores.shape[-1]])[:-1], axis=-1)
    spreads = [part.var(axis=-1, ddof=1) * part.shape[-1] for part in parts if part.shape[-1] > 1]
    result: Array = np.sum(spreads, axis=0) / scores.shape[-1] ** 2
    return result


def answer_noise(side: Array, sizes: Sequence[int] | None) -> float:
    """What the noise of single (seed, item) scores adds to the variance of the mean of a ``side`` of several seeds."""
    n_seeds, n_items = side.shape
    parts = np.split(side, np.cumsum(sizes or [n_items])[:-1], axis=1)
    left = [part - part.mean(axis=1, keepdims=True) - part.mean(axis=0) + part.mean() for part in parts]
    noise = sum(float((part**2).sum()) for part in left)
    variance: float = noise / ((n_seeds - 1) * item_freedom(n_items, sizes)) / side.size
    return variance


def mean_interval(values: Array, seed: int, n_resamples: int, sizes: Sequence[int] | None = None) -> Interval:
    """Interval of a plain mean over independent units (prompts), by the same bootstrap."""
    return contrast([1], [values[None, :]], item_weights(tuple(sizes or [len(values)]), n_resamples, seed), seed, sizes)
