"""Regret of choosing an arm: by hand, and without what luck would add."""

import numpy as np
import pytest

from prefdelta.forecast.regret import Choices, best
from prefdelta.measure.intervals import item_weights

N_ITEMS = 200


def constant(*accuracies, n_seeds=2):
    return [np.full((n_seeds, N_ITEMS), float(accuracy)) for accuracy in accuracies]


def choices(scores, sets=None):
    weights = item_weights((N_ITEMS,), 200, 0)
    return Choices(sets or ["p, dpo"] * len(scores), scores, weights, (N_ITEMS,), 0)


def test_the_first_arm_of_each_set_is_held_against_its_best():
    made = choices(constant(50, 60, 40, 90, 70), ["dpo", "dpo", "dpo", "sft", "kto"])
    assert made.among(range(5)) == [[0, 1, 2]]
    for guess, missed in (([1, 2, 3], 20), ([1, 3, 2], 0), ([0, 0, 0], 10), ([2, 1, 2], 15)):
        found = made.regret([[0, 1, 2]], np.array([*guess, 0, 0], dtype=float))
        assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((missed,) * 3)


def test_sets_count_alike_whatever_their_size():
    made = choices(constant(50, 60, 10, 20, 30), ["a", "a", "b", "b", "b"])
    assert made.regret(made.among(range(5)), np.array([1.0, 0, 1, 0, 0])).estimate == pytest.approx((10 + 20) / 2)


def test_arms_with_fewer_seeds_are_compared_by_those_that_all_have():
    scores = [*constant(50, n_seeds=3), *constant(60, n_seeds=1)]
    scores[0][1:] = 99
    assert choices(scores).regret([[0, 1]], np.array([1.0, 0])).estimate == pytest.approx(10)


def draws(rng, truth, n_tries, of_training=0.01):
    """Scores of three seeds of arms with the accuracies ``truth``, whose trainings differ and whose answers vary."""
    for _ in range(n_tries):
        chance = truth[:, None, None] / 100 + rng.normal(0, of_training, (len(truth), 3, 1))
        yield 100.0 * (rng.random((len(truth), 3, N_ITEMS)) < chance)


def test_where_all_arms_are_alike_luck_with_answers_makes_no_regret():
    missed, naive = [], []
    for scores in draws(np.random.default_rng(0), np.full(20, 50.0), 150, of_training=0):
        missed.append((best(scores) - scores[0]).mean())
        naive.append(scores.mean(axis=(1, 2)).max() - scores[0].mean())
    assert np.mean(missed) == pytest.approx(0, abs=3 * np.std(missed) / np.sqrt(150))
    assert np.mean(naive) > 2


def test_the_interval_of_a_regret_covers_what_the_choice_costs():
    rng, truth = np.random.default_rng(1), np.linspace(40, 70, 8)
    weights, covered = item_weights((N_ITEMS,), 200, 0), []
    for scores in draws(rng, truth, 200):
        found = Choices(["p, dpo"] * 8, list(scores), weights, (N_ITEMS,), 0).regret([range(8)], -np.abs(truth - 60))
        covered.append(found.ci_low <= 70 - truth[np.abs(truth - 60).argmin()] <= found.ci_high)
    assert 0.9 <= np.mean(covered) <= 1
