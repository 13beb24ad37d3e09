"""The nested bootstrap: does a 95 % interval hold the truth 95 % of the time?"""

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2, t

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.findings.capability import Capability, tabulate_capability
from prefdelta.measure.intervals import Interval, holm, item_weights, mcnemar, mean_interval, nested_interval
from prefdelta.measure.scores import ScoresError, item_scores
from prefdelta.measure.settings import Bootstrap
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Predictions

N_ITEMS = 200
WEIGHTS = item_weights((N_ITEMS,), 200, seed=0)


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
    arm = arm + np.array([[-5], [0], [5]])
    first, again, other = (nested_interval(arm, versus, item_weights((N_ITEMS,), 200, s), s) for s in (0, 0, 1))
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
        interval = nested_interval(scores(rng, difficulty, n_seeds, 60, seed_sd), base, item_weights((n_items,), 200, seed), seed)
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
    weights = item_weights((50,), 10, seed=3)
    assert weights.shape == (10, 50)
    assert weights.sum(axis=1) == pytest.approx(np.ones(10))
    assert np.array_equal(weights, item_weights((50,), 10, seed=3))


def test_a_plain_mean_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(10, 3, 400)
    interval = mean_interval(values, seed=0, n_resamples=2000)
    standard_error = values.std(ddof=1) / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.ci_high - interval.ci_low) / 2 == pytest.approx(1.966 * standard_error, rel=0.06)


def test_seeds_that_differ_while_items_do_not_have_students_interval():
    arm, versus = (mean + np.array([[-1.0], [0.0], [1.0]]) + np.zeros((3, 20)) for mean in (60, 50))
    weights = item_weights((20,), 4000, 0)
    alone, compared = nested_interval(arm, None, weights, 0), nested_interval(arm, versus, weights, 0)
    assert alone.ci_high - 60 == pytest.approx(4.303 * np.sqrt(1 / 3), rel=0.05)  # 2 degrees of freedom
    assert compared.ci_high - 10 == pytest.approx(2.776 * np.sqrt(2 / 3), rel=0.05)  # 4 degrees of freedom


def test_constant_scores_have_an_interval_of_no_width():
    interval = nested_interval(np.full((3, 20), 100.0), None, item_weights((20,), 50, 0), 0)
    assert (interval.estimate, interval.ci_low, interval.ci_high) == (100, 100, 100)


SIZES = (400, 30, 12)  # as a suite of GSM8K, AIME and a smaller one
SHARES = np.concatenate([np.full(size, sum(SIZES) / len(SIZES) / size) for size in SIZES])  # what makes a mean the mean of means


def tasks(rng, mean, difficulty, n_seeds, seed_sd):
    """(n_seeds, n_items) scores whose tasks differ in difficulty, weighted as `Scores` are; the mean over tasks is ``mean``."""
    levels = np.repeat([30.0, -10.0, -20.0], SIZES)
    return (scores(rng, difficulty, n_seeds, mean, seed_sd) + levels) * SHARES


@pytest.mark.parametrize("versus_seeds", [None, 1, 3], ids=["accuracy", "against the base", "against an arm"])
@pytest.mark.parametrize("seed_sd", [0, 6])
def test_the_interval_of_a_mean_over_tasks_of_unequal_sizes_covers_the_truth(versus_seeds, seed_sd):
    rng = np.random.default_rng(0)
    weights = item_weights(SIZES, 200, seed=0)
    covered, n_simulations = 0, 400
    for simulation in range(n_simulations):
        difficulty = rng.normal(0, 30, sum(SIZES))
        arm = tasks(rng, 60, difficulty, 3, seed_sd)
        versus = None if versus_seeds is None else tasks(rng, 50, difficulty, versus_seeds, seed_sd if versus_seeds > 1 else 0)
        interval = nested_interval(arm, versus, weights, simulation, SIZES)
        covered += interval.ci_low <= (60 if versus is None else 10) <= interval.ci_high
    assert 0.92 <= covered / n_simulations <= 0.995


def test_the_estimate_of_a_mean_over_tasks_is_the_mean_of_their_means():
    arm = tasks(np.random.default_rng(0), 60, np.zeros(sum(SIZES)), 3, 2)
    parts = np.split(arm / SHARES, np.cumsum(SIZES)[:-1], axis=1)
    estimate = nested_interval(arm, None, item_weights(SIZES, 50, 0), 0, SIZES).estimate
    assert estimate == pytest.approx(np.mean([part.mean() for part in parts]))


def test_every_resample_draws_as_many_items_of_a_task_as_it_has():
    weights = item_weights((50, 5), 40, seed=3)
    assert weights.shape == (40, 55)
    assert weights[:, :50].sum(axis=1) == pytest.approx(np.full(40, 50 / 55))
    assert weights[:, 50:].sum(axis=1) == pytest.approx(np.full(40, 5 / 55))
    assert len(np.unique(weights[:, 50:], axis=0)) > 20


def test_differences_between_tasks_are_no_uncertainty():
    rng = np.random.default_rng(0)
    values = rng.normal(50, 10, 60)
    apart = values + np.repeat([0.0, 40.0, 0.0], 20)
    level, strata = mean_interval(values, 0, 2000), mean_interval(apart, 0, 2000, [20, 20, 20])
    assert strata.ci_high - strata.ci_low == pytest.approx(level.ci_high - level.ci_low, rel=0.15)
    loose = mean_interval(apart, 0, 2000)
    assert loose.ci_high - loose.ci_low > 1.5 * (strata.ci_high - strata.ci_low)


def test_a_task_of_few_items_widens_the_interval_of_the_mean_over_tasks():
    rng = np.random.default_rng(0)
    few, many = rng.normal(50, 30, 10), rng.normal(50, 30, 990)
    both = np.concatenate([few * 1000 / 2 / 10, many * 1000 / 2 / 990])
    interval = mean_interval(both, 0, 4000, [10, 990])
    # Half of the small task's standard error is nearly all of it.
    expected = 1.96 * np.hypot(few.std(ddof=1) / np.sqrt(10), many.std(ddof=1) / np.sqrt(990)) / 2
    assert interval.estimate == pytest.approx((few.mean() + many.mean()) / 2)
    assert (interval.ci_high - interval.ci_low) / 2 >= 0.98 * expected


def test_a_task_of_one_item_has_an_interval():
    interval = mean_interval(np.array([100.0, 50.0, 60.0, 40.0]), 0, 200, [1, 3])
    assert interval.ci_low < interval.estimate == 62.5 < interval.ci_high


def predictions(path, answers):
    """`Predictions`: (suite, task) -> for each item whether its samples are correct."""
    rows = [
        {
            "item_id": f"{task}{number}",
            "suite": suite,
            "task": task,
            "decoding": "sampled",
            "sample": sample,
            "text": "7",
            "answer": "7",
            "correct": correct,
            "n_tokens": 1,
            "finish_reason": "stop",
        }
        for (suite, task), items in answers.items()
        for number, samples in enumerate(items)
        for sample, correct in enumerate(samples)
    ]
    write_table(pl.DataFrame(rows), Predictions, path)
    return path


ANSWERS = {
    ("in", "gsm8k"): [[True], [False], [True], [True]],
    ("in", "aime"): [[True, False, False, False], [False, False, False, False]],  # avg@4
    ("out", "story"): [[True], [False]],
}


def test_a_suite_of_several_tasks_has_the_mean_over_them_and_a_row_for_each(tmp_path):
    found = {scores.key: scores for scores in item_scores([predictions(tmp_path / "p.parquet", ANSWERS)], 0)[0]}
    assert set(found) == {
        ("in", None, "sampled"),
        ("in", "aime", "sampled"),
        ("in", "gsm8k", "sampled"),
        ("out", None, "sampled"),
    }
    aime, gsm8k = (found["in", task, "sampled"] for task in ("aime", "gsm8k"))
    assert (aime.values.tolist(), gsm8k.values.tolist()) == ([25, 0], [100, 0, 100, 100])
    whole = found["in", None, "sampled"]
    assert whole.values.mean() == pytest.approx((12.5 + 75) / 2)
    assert whole.sizes == (2, 4)
    assert whole.item_ids == aime.item_ids + gsm8k.item_ids
    assert found["out", None, "sampled"].values.tolist() == [100, 0]


def test_the_order_of_predictions_changes_nothing(tmp_path):
    turned = dict(reversed(ANSWERS.items()))
    files = [predictions(tmp_path / f"{n}.parquet", answers) for n, answers in enumerate((ANSWERS, turned))]
    one, other = item_scores(files, 0)
    assert [(s.key, s.item_ids, s.values.tolist()) for s in one] == [(s.key, s.item_ids, s.values.tolist()) for s in other]


def test_a_table_has_the_mean_over_tasks_and_each_task_with_its_own_number_of_items(tmp_path):
    table, manifest = tmp_path / "capability.csv", tmp_path / "manifest.json"
    write_manifest(manifest, {"family": "f", "hidden_size": 8, "layers": 1, "parameters": 9})
    evals = {"m": predictions(tmp_path / "m.parquet", ANSWERS)}
    tabulate_capability(evals, {"m": manifest}, table, settings=Bootstrap(n_resamples=100, seed=0))
    rows = read_result_csv(table, Capability).iter_rows(named=True)
    found = {(row["suite"], row["task"]): (row["estimate"], row["n_items"]) for row in rows}
    expected = {("in", None): 43.75, ("in", "aime"): 12.5, ("in", "gsm8k"): 75, ("out", None): 50}
    assert {key: estimate for key, (estimate, _) in found.items()} == pytest.approx(expected)
    assert {key: n for key, (_, n) in found.items()} == {("in", None): 6, ("in", "aime"): 2, ("in", "gsm8k"): 4, ("out", None): 2}


def test_the_table_counts_ungraded_answers_and_leaves_them_out(tmp_path):
    table, manifest = tmp_path / "capability.csv", tmp_path / "manifest.json"
    write_manifest(manifest, {"family": "f", "hidden_size": 8, "layers": 1, "parameters": 9})
    answers = {
        ("in", "gsm8k"): [[True], [None], [False]],
        ("in", "aime"): [[True, None, None, False], [None] * 4, [True] * 4],
        ("out", "story"): [[True], [False]],
    }
    evals = {"m": predictions(tmp_path / "m.parquet", answers)}
    tabulate_capability(evals, {"m": manifest}, table, settings=Bootstrap(n_resamples=100, seed=0, ungraded=0.5))
    found = read_result_csv(table, Capability).select("suite", "task", "estimate", "n_items", "n_ungraded")
    assert sorted(found.rows(), key=str) == sorted(
        [
            ("in", None, pytest.approx((50 + 75) / 2), 4, 7),
            ("in", "gsm8k", 50, 2, 1),
            ("in", "aime", pytest.approx(75), 2, 6),
            ("out", None, 50, 2, 0),
        ],
        key=str,
    )
    with pytest.raises(ScoresError, match=r"41.2% of the answers in .*m\.parquet could not be graded"):
        tabulate_capability(evals, {"m": manifest}, table, settings=Bootstrap(n_resamples=100, seed=0))


def test_the_p_value_agrees_with_the_interval_and_holds_its_size():
    rng = np.random.default_rng(5)
    false, n_simulations = 0, 600
    for simulation in range(n_simulations):
        difficulty = rng.normal(0, 30, N_ITEMS)
        arm, versus = (scores(rng, difficulty, 3, 50, 4) for _ in range(2))
        interval = nested_interval(arm, versus, WEIGHTS, simulation)
        assert (interval.p_value < 0.05) == (not interval.ci_low <= 0 <= interval.ci_high)
        false += interval.p_value < 0.05
    assert false / n_simulations <= 0.07


def test_an_interval_at_another_level_and_equivalence_agree_with_students_tests():
    test = Interval.student(1.0, 0.5, 10.0)
    assert test.at(0.95) == pytest.approx((test.ci_low, test.ci_high))
    low, high = test.at(0.9)
    assert high - 1 == pytest.approx(0.5 * t.ppf(0.95, 10)) and low + high == pytest.approx(2)
    assert test.p_equivalent(high) == pytest.approx(0.05)
    assert (Interval.student(1.0, 0.0, 10.0).p_equivalent(2.0), Interval.student(1.0, 0.0, 10.0).p_equivalent(0.5)) == (0, 1)
    assert test.minimum_detectable(0.01) > test.minimum_detectable()


def test_holm_adjusts_for_the_number_of_tests_and_keeps_their_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []


def test_mcnemar_with_one_seed_is_the_classical_test():
    arm = np.array([[100.0] * 30 + [0.0] * 12 + [100.0] * 50])
    versus = np.array([[0.0] * 30 + [100.0] * 12 + [100.0] * 50])
    assert mcnemar(arm, versus) == pytest.approx(chi2.sf((30 - 12) ** 2 / (30 + 12), 1))
    assert mcnemar(arm, arm) == 1


def test_mcnemar_does_not_count_the_seeds_of_an_item_as_independent():
    arm, versus = (np.random.default_rng(s).integers(0, 2, (1, 300)) * 100.0 for s in (0, 1))
    assert mcnemar(np.repeat(arm, 5, axis=0), np.repeat(versus, 5, axis=0)) == pytest.approx(mcnemar(arm, versus))


def test_ungraded_answers_are_left_out_of_scores_of_all_files_and_gated(tmp_path):
    """The first item has no graded answer in one file, the second one graded sample in it."""
    graded = {("s", "a"): [[True, True], [True, False], [False, False]]}
    some = {("s", "a"): [[None, None], [True, None], [False, False]]}
    files = [predictions(tmp_path / f"{n}.parquet", answers) for n, answers in enumerate((graded, some))]
    ((one,), (other,)) = item_scores(files, 0.5)
    assert one.item_ids == other.item_ids and len(one.item_ids) == 2
    assert sorted(one.values) == [0, 50] and sorted(other.values) == [0, 100]
    assert (one.n_ungraded, other.n_ungraded) == (0, 3)
    with pytest.raises(
        ScoresError, match=r"50.0% of the answers in .*1\.parquet could not be graded, above gates\.ungraded 0\.4"
    ):
        item_scores(files, 0.4)
