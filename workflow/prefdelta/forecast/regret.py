"""Regret: what it costs to train the arm that a predictor puts first instead of the best one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefdelta.measure.intervals import Array, Interval, contrast


@dataclass(frozen=True)
class Choices:
    """Arms to choose among: those that share ``sets`` (a name for each arm; here policy and method), where they are several.

    ``scores``: of each arm (n_seeds, n_items), on the same items. ``weights`` (of `item_weights`), ``sizes`` and ``seed`` are
    those of every interval.
    """

    sets: Sequence[str]
    scores: Sequence[Array]
    weights: Array
    sizes: tuple[int, ...]
    seed: int

    def among(self, shown: Sequence[int]) -> list[list[int]]:
        """The sets of at least two of the arms ``shown``."""
        found: dict[str, list[int]] = {}
        for arm in shown:
            found.setdefault(self.sets[arm], []).append(arm)
        return [arms for arms in found.values() if len(arms) > 1]

    def regret(self, sets: Sequence[Sequence[int]], guess: Array) -> Interval:
        """Accuracy (points) of the best arm minus that of the one with the largest ``guess`` (by arm), mean over ``sets``.

        Of arms that are tied for the first place, the mean. Which arm is the best is found on other seeds and items than those on
        which it is compared (`best`), so that luck makes no regret: where all arms are alike, it is 0 on average, and by luck
        also below. Compared are the first n seeds, n being the fewest that an arm has.
        """
        n_seeds = min(len(self.scores[arm]) for arms in sets for arm in arms)
        missed = []
        for arms in sets:
            scores = np.stack([self.scores[arm][:n_seeds] for arm in arms])
            first = guess[list(arms)] == guess[list(arms)].max()
            missed.append(best(scores) - scores[first].mean(axis=0))
        return contrast([1], [np.mean(missed, axis=0)], self.weights, self.seed, self.sizes)


def best(scores: Array) -> Array:
    """(n_seeds, n_items) scores of the best of the arms in ``scores`` (n_arms, n_seeds, n_items).

    For each seed and every second item, the best arm is the one with the largest mean over the other seeds (where there is but
    one: that one) and the other half of the items.
    """
    _, n_seeds, n_items = scores.shape
    odd, seeds = np.arange(n_items) % 2 == 1, np.arange(n_seeds)
    found = np.empty((n_seeds, n_items))
    for seed in seeds:
        others = seeds != seed if n_seeds > 1 else seeds == seed
        for half in (odd, ~odd):
            arm = scores[:, others][:, :, ~half].mean(axis=(1, 2)).argmax()
            found[seed, half] = scores[arm, seed, half]
    return found
