"""Slopes of scores over arms: least-squares lines whose uncertainty is in the arms that lie off them, and in the items.

Arms that share a generator share whatever is peculiar to it, so their scores are no independent points about a line. Where a fit
allows it, generators are the points (`of_generators`); else its variance is a jackknife over generators (`jackknifed`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, fdtri

from prefdelta.measure.intervals import LEVEL, Array, Interval, answer_noise, item_freedom, item_variance


@dataclass(frozen=True)
class Slope:
    """A linear combination of arms' mean scores by its ``weights`` (n_arms,).

    Its variance, but for what all arms share by item, is the sum of squares of ``scatter`` (n, n_arms) times the scores, with
    ``freedom`` degrees of freedom.
    """

    weights: Array
    scatter: Array
    freedom: int

    def interval(self, scores: Array, sizes: Sequence[int] | None = None) -> Interval:
        """Of (n_arms, n_items) ``scores``, means over seeds, with items in strata of ``sizes`` (as in `contrast`).

        The scatter of arms holds the noise of seeds and of single answers. What it can't hold is that other items would have
        another slope: this is the variance of the slope between items, without the part that their noise has in both.
        """
        means, n_items = scores.mean(axis=1), scores.shape[1]
        among = float(((self.scatter @ means) ** 2).sum())
        both = float(item_variance(self.scatter @ scores, sizes).sum())
        items = max(float(item_variance(self.weights @ scores, sizes)) - both, 0.0)
        estimate, total = float(self.weights @ means), among + items
        alone = Interval.student(estimate, math.sqrt(among), float(self.freedom))
        if not items:
            return alone
        freedom = total**2 / (among**2 / self.freedom + items**2 / item_freedom(n_items, sizes))
        # What is added is uncertain, too: it must not narrow the interval by its many degrees of freedom.
        return max(alone, Interval.student(estimate, math.sqrt(total), freedom), key=lambda one: one.ci_high)


def line(x: Sequence[float] | Array, degree: int = 1) -> Slope | None:
    """Of independent arms at ``x``: the slope of the least-squares line; with ``degree`` 2 how much that of the parabola
    changes for each unit of x. None where there are not more arms, or places, than it takes.
    """
    design = np.vander(np.asarray(x, float) - np.mean(x), degree + 1, increasing=True)
    freedom = len(design) - degree - 1
    if freedom < 1 or np.linalg.matrix_rank(design) <= degree:
        return None
    weights = degree * np.linalg.pinv(design)[degree]
    return Slope(weights, math.sqrt(weights @ weights / freedom) * residuals(design), freedom)


def of_generators(chosen: Sequence[str], rejected: Sequence[str], accuracy: Sequence[float]) -> Slope | None:
    """The slope of the arms' scores on the ``accuracy`` of their ``chosen`` generators (the first two exchanged: of the rejected
    ones), on two degrees of freedom less than there are of these.

    In two steps (Donald and Lang 2007, doi 10.1162/rest.89.2.221): what each chosen generator is worth, in the additive model of
    chosen and rejected generators; then a line through these. What is peculiar to a generator, on either side or on both, is one
    deviation from a line then, so the interval holds the slope also with four generators. None with fewer than three, or where
    the arms do not connect them.
    """
    names = list(dict.fromkeys(chosen))
    design = additive(chosen, rejected)
    if np.linalg.matrix_rank(design) < design.shape[1] - 1:
        return None
    along = line([accuracy[list(chosen).index(name)] for name in names])
    worth = np.linalg.pinv(design)[: len(names)]
    return along and Slope(along.weights @ worth, along.scatter @ worth, along.freedom)


def both(one: Slope, other: Slope) -> Slope:
    """The sum of two slopes whose generators have nothing in common."""
    scatter = np.concatenate([one.scatter, other.scatter])
    return Slope(one.weights + other.weights, scatter, min(one.freedom, other.freedom))


def jackknifed(terms: Array, unit: Array, sides: Sequence[frozenset[str]]) -> Slope | None:
    """The combination ``unit`` of the slopes on (n_arms, p) ``terms``; ``sides`` are the generators of each arm.

    The variance is that of the slopes without each generator in turn, that is without all arms which have it on either side
    (Snijders and Borgatti 1999, Connections 22(2); with the factor (n - 1) / n, since a generator's peculiarity is in all of its
    arms), on one degree of freedom less than generators. In simulations of designs like ours it is too wide rather than too
    narrow. None where there are fewer than three generators, or the slopes can't be told without one of them.
    """
    design = np.column_stack([np.ones(len(terms)), terms])
    without = []
    for name in sorted(frozenset[str]().union(*sides)):
        kept = np.array([name not in side for side in sides])
        if np.linalg.matrix_rank(design[kept]) < design.shape[1]:
            return None
        weights = np.zeros(len(design))
        weights[kept] = unit @ np.linalg.pinv(design[kept])[1:]
        without.append(weights)
    n = len(without)
    if n < 3:
        return None
    scatter = math.sqrt((n - 1) / n) * (np.array(without) - np.mean(without, axis=0))
    return Slope(unit @ np.linalg.pinv(design)[1:], scatter, n - 1)


def additive(chosen: Sequence[str], rejected: Sequence[str]) -> Array:
    """(n_arms, generators of either side) which generators an arm has: the design of gains that are the sum of two parts."""
    sides = [[[name == other for other in dict.fromkeys(side)] for name in side] for side in (chosen, rejected)]
    return np.hstack([np.asarray(side, float) for side in sides])


def residuals(design: Array) -> Array:
    """The matrix that takes scores of arms to what a fit with this (n_arms, p) ``design`` leaves of them."""
    left: Array = np.eye(len(design)) - design @ np.linalg.pinv(design)
    return left


@dataclass(frozen=True)
class Departure:
    """By how much arms depart from a fit beyond noise: a standard deviation (points), its 95 % interval, an F test's p-value."""

    estimate: float
    ci_low: float
    ci_high: float
    p_value: float


def departure(design: Array, sides: Sequence[Array], sizes: Sequence[int] | None = None) -> Departure | None:
    """Of ``sides``, each (n_seeds, n_items) scores of an arm, from the fit with this (n_arms, p) ``design``.

    The mean square of the residuals is set against what noise makes of it: seeds, and items, with the noise of single answers,
    which both hold, once. None where a fit goes through all arms, an arm has one seed, or nothing varies.
    """
    left = residuals(design)
    freedom = len(design) - int(np.linalg.matrix_rank(design))
    if freedom < 1 or min(len(side) for side in sides) < 2:
        return None
    scores, share = np.stack([side.mean(axis=0) for side in sides]), np.diag(left) / freedom
    found = float(((left @ scores.mean(axis=1)) ** 2).sum()) / freedom
    seeds = float(share @ [side.mean(axis=1).var(ddof=1) / len(side) for side in sides])
    items = float(item_variance(left @ scores, sizes).sum()) / freedom
    items = max(items - float(share @ [answer_noise(side, sizes) for side in sides]), 0.0)
    noise = seeds + items
    if noise == 0:
        return None
    known = sum(len(side) - 1 for side in sides), freedom * item_freedom(scores.shape[1], sizes)
    freedom_of_noise = noise**2 / (seeds**2 / known[0] + items**2 / known[1])
    ratio = found / noise
    ends = (1 + LEVEL) / 2, (1 - LEVEL) / 2
    bounds = [ratio / float(fdtri(freedom, freedom_of_noise, end)) for end in ends]
    estimate, low, high = (math.sqrt(max(one - 1, 0.0) * noise) for one in (ratio, *bounds))
    return Departure(estimate, low, high, float(fdtrc(freedom, freedom_of_noise, ratio)))
