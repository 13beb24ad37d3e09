"""Regret: what it costs to train the arm that a predictor puts first instead of the best one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefdelta.measure.intervals import Array, Interval, contrast

FOLDS = 5


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

        Of arms that are tied for the first place, the mean. Which arm is the best is found on other items than those on which it
        is compared (`best`), so that luck with single answers makes no regret; so it can come out below 0. Compared are the
        first n seeds, n being the fewest that an arm has.
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

    On every fifth item, the best arm is the one with the largest mean over the other four fifths. The largest of all means would
    be too large by the luck of its answers. Luck in training is on all items, and stays: leaving out seeds, too, takes more from
    what is known of the arms than it gains (simulated with 12 and 30 arms, 2 and 3 seeds).
    """
    n_items = scores.shape[2]
    found = np.empty(scores.shape[1:])
    for fold in range(FOLDS):
        held = np.arange(n_items) % FOLDS == fold
        arm = scores[:, :, ~held].mean(axis=(1, 2)).argmax()
        found[:, held] = scores[arm][:, held]
    return found
