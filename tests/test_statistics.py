"""Simulations of what the statistics promise: coverage, size, power and familywise error, at the numbers of arms of a study."""

from functools import cache

import numpy as np
import pytest

from prefdelta.measure.intervals import Interval, item_weights, nested_interval
from prefdelta.measure.slopes import Slope, additive, both, departure, jackknifed, line, of_generators
from prefdelta.measure.verdict import decided

N_ITEMS, N_SEEDS = 60, 3
ABILITY = {"a": 0.0, "b": 1.2, "c": 5.9, "d": 7.4}  # tens of points, as uneven as generators are
GRID = [(chosen, rejected) for chosen in ABILITY for rejected in ABILITY if chosen != rejected]
CHOSEN, REJECTED = zip(*GRID, strict=True)
TRUTH = 3.0  # points of gain for ten points of accuracy


def simulated(rng, gains, *, seed_sd=2.0, item_slopes=None, n_items=N_ITEMS):
    """(n_arms, n_seeds, n_items) scores whose expectations are ``gains``: items of their own difficulty (and of their own slopes
    along ``item_slopes``), seeds of arms, noise of single answers."""
    gains = np.asarray(gains)
    scores = gains[:, None, None] + rng.normal(0, 30, n_items) + rng.normal(0, seed_sd, (len(gains), N_SEEDS, 1))
    if item_slopes is not None:
        scores = scores + np.asarray(item_slopes)[:, None, None] * rng.normal(0, 1, n_items)
    return scores + rng.normal(0, 15, scores.shape)


def coverage(slope, truth, draw, n=1500):
    """The share of ``n`` data sets of ``draw`` in which the slope's interval holds the ``truth``."""
    intervals = [slope.interval(draw().mean(axis=1)) for _ in range(n)]
    return np.mean([interval.ci_low <= truth <= interval.ci_high for interval in intervals])


@pytest.mark.parametrize(
    ("peculiar", "mirrored", "item_sd"), [(6.0, True, 0.0), (6.0, False, 0.0), (0.0, True, 0.0), (1.0, True, 12.0)]
)
def test_slopes_of_twelve_arms_of_four_generators_are_covered(peculiar, mirrored, item_sd):
    """What is peculiar to a generator adds to every arm that has it; mirrored: by the form of the loss, on both sides alike."""
    rng, names = np.random.default_rng(0), list(ABILITY)
    slope = of_generators(CHOSEN, REJECTED, [ABILITY[name] for name in CHOSEN])
    places = [[names.index(name) for name in side] for side in (CHOSEN, REJECTED)]
    delta = np.array([ABILITY[chosen] - ABILITY[rejected] for chosen, rejected in GRID])

    def draw():
        one, other = rng.normal(0, peculiar, (2, 4))
        other = -one if mirrored else other
        return simulated(rng, TRUTH * delta + one[places[0]] + other[places[1]], item_slopes=item_sd / 5 * delta)

    assert 0.93 <= coverage(slope, TRUTH, draw) <= 0.97


@pytest.mark.parametrize("rungs", [[0.0, 1.2, 5.9, 7.4], [0.0, 1.2, 3.1, 5.9, 7.4], [0.0, 0.8, 1.2, 3.1, 5.9, 7.4]])
@pytest.mark.parametrize(("peculiar", "item_sd"), [(5.0, 0.0), (0.0, 0.0), (1.0, 10.0)])
def test_the_slope_of_a_ladder_is_covered(rungs, peculiar, item_sd):
    rng, x = np.random.default_rng(1), np.array(rungs)

    def draw():
        return simulated(rng, TRUTH * x + rng.normal(0, peculiar, len(x)), item_slopes=item_sd / 5 * x)

    assert 0.93 <= coverage(line(rungs), TRUTH, draw) <= 0.97


@pytest.mark.parametrize("bend", [0.0, -0.6])
def test_the_curvature_of_a_ladder_is_covered_and_is_nothing_on_a_line(bend):
    rng, x = np.random.default_rng(2), np.array([0.0, 1.5, 3.0, 4.5, 6.0, 7.5])
    slope = line(list(x), degree=2)

    def draw():
        return simulated(rng, TRUTH * x + bend / 2 * x**2 + rng.normal(0, 2, len(x)))

    assert 0.93 <= coverage(slope, bend, draw) <= 0.97


def test_slopes_on_deltas_of_arms_that_share_generators_are_not_too_sure():
    rng = np.random.default_rng(3)
    sides = (
        [(0, 1)] * 12 + [(one, other) for one in range(4) for other in range(4) if one != other] + [(4, n) for n in range(5, 10)]
    )
    own = rng.normal(0, 1, (10, 2))
    terms = np.array([own[one] - own[other] for one, other in sides]) + rng.normal(0, 0.5, (len(sides), 2))
    named = [frozenset({str(one), str(other)}) for one, other in sides]
    slope = jackknifed(terms, np.array([1.0, 0.0]), named)

    def draw():
        peculiar = rng.normal(0, 4, 10)
        gains = terms @ [TRUTH, -1] + [peculiar[one] - peculiar[other] for one, other in sides]
        return simulated(rng, gains, n_items=30)

    assert coverage(slope, TRUTH, draw, n=500) >= 0.95
    independent = Slope(slope.weights, *_residual_scatter(terms, slope.weights))
    assert coverage(independent, TRUTH, draw, n=500) < 0.9  # as if arms were independent


def _residual_scatter(terms, weights):
    design = np.column_stack([np.ones(len(terms)), terms])
    freedom = len(design) - design.shape[1]
    left = np.eye(len(design)) - design @ np.linalg.pinv(design)
    return np.sqrt(weights @ weights / freedom) * left, freedom


@pytest.mark.parametrize(("interaction", "least", "most"), [(0.0, 0.02, 0.08), (5.0, 0.7, 1.0)], ids=["size", "power"])
def test_additivity_is_rejected_where_gains_are_no_sum_of_two_parts_alone(interaction, least, most):
    rng, design = np.random.default_rng(4), additive(CHOSEN, REJECTED)
    found = []
    for _ in range(400):
        gains = [3 * ABILITY[chosen] - 2 * ABILITY[rejected] for chosen, rejected in GRID]
        found.append(departure(design, list(simulated(rng, gains + rng.normal(0, interaction, 12)))))
    assert least <= np.mean([one.p_value < 0.05 for one in found]) <= most
    assert np.mean([one.ci_low <= interaction <= one.ci_high for one in found]) >= 0.93


def test_the_sum_of_two_slopes_is_covered():
    rng = np.random.default_rng(5)
    arms = [(chosen, rejected) for chosen in "abcd" for rejected in "wxyz"]
    ability = ABILITY | dict(zip("wxyz", ABILITY.values(), strict=True))
    chosen, rejected = zip(*arms, strict=True)
    one = of_generators(chosen, rejected, [ability[name] for name in chosen])
    other = of_generators(rejected, chosen, [ability[name] for name in rejected])

    def draw():
        peculiar = {name: rng.normal(0, 4) for name in ability}
        return simulated(rng, [3 * ability[i] + peculiar[i] - 2 * ability[j] + peculiar[j] for i, j in arms])

    assert coverage(both(one, other), 1.0, draw, n=800) >= 0.93


@cache
def weights():
    return item_weights((N_ITEMS,), 200, seed=0)


def test_contrasts_of_arms_are_covered():
    rng, covered = np.random.default_rng(6), []
    for simulation in range(1200):
        interval = nested_interval(*simulated(rng, [60.0, 50.0], seed_sd=4.0), weights(), simulation)
        covered.append(interval.ci_low <= 10 <= interval.ci_high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_the_noise_of_answers_is_counted_once(n_seeds):
    rng, variances, estimates = np.random.default_rng(7), [], []
    for simulation in range(400):
        arm, versus = rng.normal(0, 40, (2, n_seeds, N_ITEMS))  # neither seeds nor items differ
        interval = nested_interval(arm, versus, weights(), simulation)
        variances.append(interval.standard_error**2)
        estimates.append(interval.estimate)
    # Twice would be 2. Above 1 since no variance is smaller than that of its largest component.
    assert 0.95 <= np.mean(variances) / (2 * 40**2 / (n_seeds * N_ITEMS)) <= 1.4
    assert np.std(estimates) ** 2 <= np.mean(variances)


def family(rng, truths, freedom, error=1.0):
    """Tests of ``truths`` with independent estimates."""
    truths = np.asarray(truths, float)
    errors = error * np.sqrt(rng.chisquare(freedom, truths.shape) / freedom)
    estimates = truths + rng.normal(0, error, truths.shape)
    return [Interval.student(float(one), float(other), freedom) for one, other in zip(estimates, errors, strict=True)]


@pytest.mark.parametrize(("n", "freedom"), [(1, 2), (1, 12), (4, 4), (9, 4), (9, 12)])
def test_the_minimum_detectable_difference_is_found_four_times_out_of_five(n, freedom):
    rng, nothing = np.random.default_rng(7), [0.0] * (n - 1)
    stated = np.mean([decided(family(rng, [0.0, *nothing], freedom))[0]["minimum_detectable"] for _ in range(300)])
    found = [decided(family(rng, [stated, *nothing], freedom))[0]["p_holm"] < 0.05 for _ in range(1500)]
    assert 0.75 <= np.mean(found) <= 0.85


def test_the_stated_difference_of_measured_arms_is_found_four_times_out_of_five():
    rng, others = np.random.default_rng(8), np.random.default_rng(9)

    def decision(gain, simulation):
        test = nested_interval(*simulated(rng, [50.0 + gain, 50.0], seed_sd=3.0), weights(), simulation)
        return decided([test, *family(others, [0.0] * 5, 12)])[0]

    stated = np.mean([decision(0, simulation)["minimum_detectable"] for simulation in range(300)])
    found = [decision(stated, simulation)["p_holm"] < 0.05 for simulation in range(600)]
    assert 0.75 <= np.mean(found) <= 0.85


def test_a_family_has_a_false_finding_in_one_of_twenty_at_most():
    rng = np.random.default_rng(10)
    for truths in ([0.0] * 8, [0.0] * 4 + [20.0] * 4):
        decisions = [decided(family(rng, truths, 8)) for _ in range(1500)]
        false = [any(row["p_holm"] < 0.05 for row, truth in zip(rows, truths, strict=True) if not truth) for rows in decisions]
        assert np.mean(false) <= 0.062


def test_adjusted_intervals_hold_all_truths_of_a_family_and_agree_with_what_is_decided():
    rng, truths = np.random.default_rng(11), [0.0, 0.0, 0.0, 2.0, 3.0, 4.0, 6.0, 9.0]
    held = []
    for _ in range(1500):
        rows = decided(family(rng, truths, 8))
        held.append(all(row["adjusted_low"] <= truth <= row["adjusted_high"] for row, truth in zip(rows, truths, strict=True)))
        for row in rows:
            assert (row["p_holm"] < 0.05) == (not row["adjusted_low"] < 0 < row["adjusted_high"])
    assert np.mean(held) >= 0.94


@pytest.mark.parametrize("n", [1, 6])
def test_equivalence_is_found_of_a_difference_of_the_smallest_effect_in_one_of_twenty_at_most(n):
    rng = np.random.default_rng(12)
    false = [any(row["equivalent_within"] for row in decided(family(rng, [2.0] * n, 8, 0.5), 2.0)) for _ in range(2000)]
    assert 0.02 <= np.mean(false) <= 0.06


def test_equivalence_is_found_where_there_is_no_difference_and_the_interval_is_narrow():
    rng = np.random.default_rng(13)
    rows = [decided(family(rng, [0.0], 8, 0.5), 2.0)[0] for _ in range(500)]
    assert np.mean([row["equivalent_within"] == 2.0 for row in rows]) > 0.9
    for row in rows:
        if row["equivalent_within"]:
            assert max(-row["adjusted_low"], row["adjusted_high"]) <= 2
