"""The nested bootstrap: does a 95 % interval hold the truth 95 % of the time?"""

import numpy as np
import pytest

from prefdelta.statistics import item_weights, mean_interval, nested_interval

N_ITEMS = 200
WEIGHTS = item_weights([N_ITEMS], 200, seed=0)


def scores(rng, difficulty, n_seeds, mean, seed_sd):
    """(n_seeds, n_items) scores: the items' common difficulty, an effect of each seed, and noise; expectation ``mean``."""
    seeds = rng.normal(0, seed_sd, (n_seeds, 1))
    return mean + difficulty + seeds + rng.normal(0, 25, (n_seeds, difficulty.size))


@pytest.mark.parametrize("seed_sd", [0, 1, 6, 30])
@pytest.mark.parametrize("versus_seeds", [None, 1, 3], ids=["accuracy", "against the base", "against an arm"])
def test_the_interval_covers_the_truth(versus_seeds, seed_sd):
    rng = np.random.default_rng(0)
    covered, n_simulations = 0, 600
    for simulation in range(n_simulations):
        difficulty = rng.normal(0, 30, N_ITEMS)
        arm = scores(rng, difficulty, 3, 60, seed_sd)
        versus = None if versus_seeds is None else scores(rng, difficulty, versus_seeds, 50, seed_sd if versus_seeds > 1 else 0)
        interval = nested_interval(arm, versus, WEIGHTS, simulation)
        covered += interval.ci_low <= (60 if versus is None else 10) <= interval.ci_high
    assert 0.92 <= covered / n_simulations <= 0.995


def test_the_interval_of_shares_of_correct_answers_covers_the_truth():
    def chance(logits):
        return 1 / (1 + np.exp(-logits))

    rng = np.random.default_rng(1)
    logits = rng.normal(0, np.hypot(1.5, 0.1), 1_000_000)
    truth = 100 * np.mean(chance(logits + 0.5) - chance(logits))
    covered, n_simulations = 0, 600
    for simulation in range(n_simulations):
        difficulty = rng.normal(0, 1.5, N_ITEMS)
        arm, versus = (100 * rng.binomial(4, chance(difficulty + gain + rng.normal(0, 0.1, (3, 1)))) / 4 for gain in (0.5, 0))
        interval = nested_interval(arm, versus, WEIGHTS, simulation)
        covered += interval.ci_low <= truth <= interval.ci_high
    assert 0.92 <= covered / n_simulations <= 0.995


def example(seed=0, n_items=N_ITEMS, n_seeds=3, versus_seeds=3):
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 30, n_items)
    return scores(rng, difficulty, n_seeds, 60, 2), scores(rng, difficulty, versus_seeds, 50, 2)


def test_identical_arms_differ_by_nothing():
    arm, _ = example()
    interval = nested_interval(arm, arm, WEIGHTS, 0)
    assert interval.estimate == 0
    assert interval.ci_low < 0 < interval.ci_high
    assert nested_interval(arm[:1], arm[:1], WEIGHTS, 0).ci_high == 0


@pytest.mark.parametrize("versus_seeds", [1, 2, 3])
def test_the_estimate_is_the_plain_difference_of_means(versus_seeds):
    arm, versus = example(versus_seeds=versus_seeds)
    assert nested_interval(arm, versus, WEIGHTS, 0).estimate == pytest.approx(arm.mean() - versus.mean())
    assert nested_interval(arm, None, WEIGHTS, 0).estimate == pytest.approx(arm.mean())


def test_the_interval_is_centred_on_the_estimate_and_decided_by_the_seed():
    arm, versus = example()
    first, again, other = (nested_interval(arm, versus, item_weights([N_ITEMS], 200, s), s) for s in (0, 0, 1))
    assert first == again
    assert first.ci_low != other.ci_low
    assert first.ci_high - first.estimate == pytest.approx(first.estimate - first.ci_low)


def test_exchanging_the_sides_mirrors_the_estimate():
    arm, versus = example()
    assert nested_interval(arm, versus, WEIGHTS, 0).estimate == pytest.approx(-nested_interval(versus, arm, WEIGHTS, 0).estimate)


def width(n_items=N_ITEMS, n_seeds=3, seed_sd=2.0, repeats=20):
    """The mean width of intervals against a base, over some data sets."""
    widths = []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(0, 30, n_items)
        base = scores(rng, difficulty, 1, 50, 0)
        interval = nested_interval(scores(rng, difficulty, n_seeds, 60, seed_sd), base, item_weights([n_items], 200, seed), seed)
        widths.append(interval.ci_high - interval.ci_low)
    return np.mean(widths)


def test_more_items_narrow_the_interval():
    assert width(100) > 1.5 * width(400) > 2 * width(1600, seed_sd=0)


def test_variation_between_seeds_widens_the_interval_and_more_seeds_narrow_it():
    assert width(seed_sd=0) < width(seed_sd=6) / 1.5
    assert width(seed_sd=6, n_seeds=10) < width(seed_sd=6, n_seeds=3) / 1.5


def test_pairing_by_item_narrows_the_interval():
    arm, versus = example()
    unpaired = versus[:, np.random.default_rng(0).permutation(N_ITEMS)]
    paired, loose = (nested_interval(arm, other, WEIGHTS, 0) for other in (versus, unpaired))
    assert paired.ci_high - paired.ci_low < 0.8 * (loose.ci_high - loose.ci_low)


def test_weights_of_every_resample_sum_to_one_and_are_shared_by_seed():
    weights = item_weights([50], 10, seed=3)
    assert weights.shape == (10, 50)
    assert weights.sum(axis=1) == pytest.approx(np.ones(10))
    assert np.array_equal(weights, item_weights([50], 10, seed=3))


def test_a_plain_mean_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(10, 3, 400)
    interval = mean_interval(values, seed=0, n_resamples=2000)
    standard_error = values.std(ddof=1) / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.ci_high - interval.ci_low) / 2 == pytest.approx(1.966 * standard_error, rel=0.06)


def test_seeds_that_differ_while_items_do_not_have_students_interval():
    arm, versus = (mean + np.array([[-1.0], [0.0], [1.0]]) + np.zeros((3, 20)) for mean in (60, 50))
    weights = item_weights([20], 4000, 0)
    alone, compared = nested_interval(arm, None, weights, 0), nested_interval(arm, versus, weights, 0)
    assert alone.ci_high - 60 == pytest.approx(4.303 * np.sqrt(1 / 3), rel=0.05)  # 2 degrees of freedom
    assert compared.ci_high - 10 == pytest.approx(2.776 * np.sqrt(2 / 3), rel=0.05)  # 4 degrees of freedom


def test_constant_scores_have_an_interval_of_no_width():
    interval = nested_interval(np.full((3, 20), 100.0), None, item_weights([20], 50, 0), 0)
    assert (interval.estimate, interval.ci_low, interval.ci_high) == (100, 100, 100)
