"""Intervals for accuracies and paired differences: a bootstrap over items nested in training seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, which takes a second to import

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, in the units of the data."""

    estimate: float
    ci_low: float
    ci_high: float


def item_weights(sizes: Sequence[int], n_resamples: int, seed: int) -> Array:
    """(n_resamples, n_items) bootstrap weights, each row summing to 1. Share them among arms: that pairs them by item.

    Items come in strata (tasks) of ``sizes``, one after the other, and each is resampled within itself.
    """
    rng = np.random.default_rng(seed)
    draws = [rng.multinomial(size, np.full(size, 1 / size), size=n_resamples) for size in sizes]
    return np.concatenate(draws, axis=1) / sum(sizes)


def nested_interval(arm: Array, versus: Array | None, weights: Array, seed: int, sizes: Sequence[int] | None = None) -> Interval:
    """Interval of an arm's mean, or of its mean difference to ``versus`` on the same items.

    ``arm`` and ``versus`` are (n_seeds, n_items) scores; ``weights`` come from `item_weights`, and so do ``sizes`` of the strata
    (default: one). Every resample draws items (the same for both sides) and, within each side, training seeds: n_seeds - 1 of
    n_seeds with replacement, which makes the bootstrap variance of a mean unbiased for few seeds (Rao and Wu 1988,
    doi 10.1080/01621459.1988.10478591). Drawing both counts the noise of single (seed, item) scores twice, so one of the two is
    subtracted. The interval is the estimate -+ a quantile of Student's t x the bootstrap's standard deviation, with
    Satterthwaite's degrees of freedom from the variance components: with three seeds a normal quantile would be far too short. A
    side with one seed (the base policy, say) is taken as fixed, and the interval then speaks of items only.
    """
    rng = np.random.default_rng(seed)
    sides = [arm] if versus is None else [arm, -versus]
    estimate = float(sum(side.mean() for side in sides))
    n_items = arm.shape[1]
    bounds = np.cumsum(sizes or [n_items])[:-1]
    degrees = max(n_items - len(bounds) - 1, 1)
    draws, counted_twice = np.zeros(len(weights)), 0.0
    variances: list[tuple[float, int]] = []
    for side in sides:
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
    per_item = sum(side.mean(axis=0) for side in sides)
    spread = sum(float(part.var(ddof=1)) * len(part) for part in np.split(per_item, bounds) if len(part) > 1)
    variances.append((spread / n_items**2, degrees))
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return Interval(estimate, estimate, estimate)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    # The largest component alone is the least that the variance can be, whatever the subtraction leaves.
    variance = max(float(draws.var(ddof=1)) - counted_twice, max(variance for variance, _ in variances))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


def _interaction(scores: Array) -> Array:
    """What is left of (n_seeds, n_items) scores without the means of seeds and of items."""
    left: Array = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return left


def mean_interval(values: Array, seed: int, n_resamples: int, sizes: Sequence[int] | None = None) -> Interval:
    """Interval of a plain mean over independent units (prompts), by the same bootstrap."""
    return nested_interval(values[None, :], None, item_weights(sizes or [len(values)], n_resamples, seed), seed, sizes)
