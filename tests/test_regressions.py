"""Regressions of the gain over arms: are the slopes those of least squares, and do their intervals hold the truth?"""

import numpy as np
import polars as pl
import pytest
from build import result
from scipy.stats import linregress

from prefdelta.answers.regressions import LeastSquares, Regressions, _qualities, _trend, plot_regressions, tabulate_regressions
from prefdelta.answers.settings import FitSettings, RegressionsSettings
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.whatif import WhatIf
from prefdelta.measure.settings import ArmSettings, SuiteSettings
from prefdelta.measure.slopes import jackknifed, line, of_generators
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.lattice import Cell
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Predictions

ABILITY = {"a": 20.0, "b": 40.0, "c": 60.0, "d": 80.0, "e": 95.0}
SIDES = [(chosen, rejected) for chosen in "abcd" for rejected in "abcd" if chosen != rejected]
ALL = [*SIDES, ("e", "a")]  # a rung of the ladder that is not in the grid


def test_slopes_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    x, terms, gains = rng.normal(size=20), rng.normal(size=(20, 3)), rng.normal(size=20)
    assert line(x).weights @ gains == pytest.approx(np.polyfit(x, gains, 1)[0])
    assert line(x, degree=2).weights @ gains == pytest.approx(2 * np.polyfit(x, gains, 2)[0])
    expected = np.linalg.lstsq(np.column_stack([np.ones(20), terms]), gains, rcond=None)[0][1:]
    sides = [frozenset({str(n % 5)}) for n in range(20)]
    assert [jackknifed(terms, unit, sides).weights @ gains for unit in np.eye(3)] == pytest.approx(expected)


def test_a_ladder_over_several_rejected_generators_is_as_sure_as_its_generators():
    words = {"policy": "p", "method": "dpo", "judge": "j", "selection": "full"}
    arms = [ArmSettings(**words, chosen=chosen, rejected=rejected) for chosen in "abcd" for rejected in "xyz"]
    delta = np.array([2.0 * "abcd".index(arm.chosen) - 1.5 * "xyz".index(arm.rejected) for arm in arms])
    gains = np.random.default_rng(0).normal(size=12)
    for degree in (1, 2):
        fit = FitSettings(fit="ladder", kind="trend", arms=arms)
        assert _trend(fit, delta, degree, {}).weights @ gains == pytest.approx(degree * np.polyfit(delta, gains, degree)[0])
        assert _trend(fit, delta, degree, {}).freedom == 6
        assert _trend(fit, delta, degree, {"x": "m", "y": "m"}).freedom == 5, "two samples of one model are one generator"


def test_a_line_through_arms_has_the_textbook_interval():
    rng = np.random.default_rng(1)
    x, gains = [0.0, 1.0, 3.0, 7.0, 8.0], rng.normal(size=5)
    found, expected = line(x).interval(np.tile(gains[:, None], 50)), linregress(x, gains)
    assert (found.estimate, found.standard_error, found.freedom) == pytest.approx((expected.slope, expected.stderr, 3))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_what_can_not_be_told_is_no_slope():
    assert line([0.0, 1.0]) is None and line([0.0, 1.0, 1.0], degree=2) is None and line([2.0, 2.0, 2.0]) is None
    assert of_generators("abab", "ccdd", [1, 2, 1, 2]) is None  # two generators
    assert of_generators("abcdef", "xxyyzz", [1, 2, 3, 4, 5, 6]) is None  # which nothing connects
    one = [frozenset("ab"), frozenset("ac"), frozenset("ad"), frozenset("cd")]
    assert jackknifed(np.arange(4.0)[:, None], np.ones(1), one) is None  # without a, one arm is left


def test_inflation_shows_terms_that_go_together():
    rng = np.random.default_rng(1)
    one, other, third = rng.normal(size=(3, 500))
    apart = LeastSquares(np.column_stack([one, other, third]), one)
    assert apart.inflation == pytest.approx([1, 1, 1], abs=0.05)
    both = one + 0.1 * other
    entangled = LeastSquares(np.column_stack([one, both, third]), one).inflation
    r2 = np.corrcoef(one, both)[0, 1] ** 2
    assert entangled[:2] == pytest.approx([1 / (1 - r2)] * 2, rel=0.05)
    assert entangled[2] == pytest.approx(1, abs=0.05)
    assert LeastSquares(np.column_stack([one, 2 * one, third]), one).inflation == [None] * 3


def write_evals(path, rng, chance, n_items=150, samples=4):
    correct = rng.random((n_items, samples)) < chance
    rows = [
        {
            "item_id": f"i{item}",
            "suite": "ood",
            "task": "t",
            "decoding": "sampled",
            "sample": sample,
            "text": "",
            "answer": None,
            "correct": bool(correct[item, sample]),
            "n_tokens": 1,
            "finish_reason": "stop",
        }
        for item in range(n_items)
        for sample in range(samples)
    ]
    write_table(rows_to_table(rows, Predictions), Predictions, path)


def tabulated(folder, names=DIMENSIONS):
    """The table of a study in which the gain is 0.2 x chosen - 0.2 x rejected accuracy: the delta alone counts.

    ``names``: what its judge rates.
    """
    rng = np.random.default_rng(3)
    accuracies = [
        {
            "chosen": chosen,
            "rejected": rejected,
            "judge": "j",
            "quantity": "accuracy",
            "chosen_mean": ABILITY[chosen],
            "rejected_mean": ABILITY[rejected],
            "estimate": ABILITY[chosen] - ABILITY[rejected],
            "ci_low": 0.0,
            "ci_high": 0.0,
            "n_prompts": 9,
            "n_ungraded": 0,
        }
        for chosen, rejected in ALL
    ]
    write_result_table(rows_to_table(accuracies, GeneratorDeltas), GeneratorDeltas, folder / "deltas.csv")
    arms, evals = [], {}
    for chosen, rejected in ALL:
        words = {"policy": "p", "method": "dpo", "judge": "j", "chosen": chosen, "rejected": rejected, "selection": "full"}
        cells = [Cell(**words, seed=seed) for seed in range(3)]
        for cell in cells:
            chance = 0.5 + 0.002 * (ABILITY[chosen] - ABILITY[rejected]) + rng.normal(0, 0.01)
            evals[cell] = folder / f"{chosen}{rejected}{cell.seed}.parquet"
            write_evals(evals[cell], rng, chance)
        arms.append(ArmSettings(**words, cells=cells))
    write_evals(folder / "base.parquet", rng, 0.5)
    model = WhatIf.by(THE_FIVE.model_copy(update={"names": names}))
    schema = model.to_schema().columns
    whatif = [
        {name: 1 if column.dtype.type != pl.String else "x" for name, column in schema.items()}
        | arm.words
        | {f"delta_{name}": rng.uniform(-1, 1) for name in names}
        for arm in arms
    ]
    write_result_table(rows_to_table(whatif, model), model, folder / "whatif.csv")
    ladder = [arm for arm in arms if arm.rejected == "a"]
    fits = [
        {"fit": "ladder", "kind": "trend", "arms": ladder, "primary": True},
        {"fit": "ladder", "kind": "trend", "arms": ladder, "among": "again"},
        {"fit": "grid", "kind": "quality", "arms": arms[:12]},
        {"fit": "dimensions", "kind": "dimensions", "arms": arms},
        {"fit": "tiny", "kind": "quality", "arms": arms[:4]},
    ]
    settings = RegressionsSettings(fits=fits, models={}, suite="ood", ungraded=0)
    files = (folder / "deltas.csv", folder / "whatif.csv", evals, {"p": folder / "base.parquet"}, folder / "regressions.csv")
    tabulate_regressions(*files, settings=settings)
    return folder / "regressions.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tabulated(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def regressions(table):
    rows = read_result_csv(table, Regressions).filter(pl.col("among").is_null())
    return {(row["fit"], row["term"]): row for row in rows.iter_rows(named=True)}


def test_where_the_delta_alone_counts_the_grid_says_so(regressions):
    chosen, rejected = (regressions["grid", term] for term in ("chosen", "rejected"))
    assert chosen["ci_low"] <= 2 <= chosen["ci_high"]
    assert rejected["ci_low"] <= -2 <= rejected["ci_high"]
    assert rejected["p_holm"] >= rejected["p_value"] and rejected["adjusted_high"] > rejected["ci_high"]
    assert chosen["r2"] > 0.8 and chosen["freedom"] < 5
    assert regressions["grid", "additivity"]["p_value"] > 0.01


def test_the_sum_of_both_slopes_is_given_where_no_generator_is_on_both_sides(regressions):
    assert ("grid", "chosen + rejected") not in regressions
    words = {"policy": "p", "method": "dpo", "judge": "j", "selection": "full"}
    apart = [ArmSettings(**words, chosen=chosen, rejected=rejected) for chosen in "abc" for rejected in "xyz"]
    slopes = _qualities(apart, {"chosen": np.repeat([2.0, 4.0, 6.0], 3), "rejected": np.tile([1.0, 2.0, 5.0], 3)})
    assert np.allclose(slopes["chosen + rejected"].weights, slopes["chosen"].weights + slopes["rejected"].weights)


def test_the_trend_of_a_ladder_is_for_ten_points_of_delta(regressions):
    trend, curvature, linearity = (regressions["ladder", term] for term in ("generator_delta", "curvature", "linearity"))
    assert trend["ci_low"] <= 2 <= trend["ci_high"]
    assert trend["n_arms"] == 4 and trend["freedom"] < 5
    assert curvature["ci_low"] <= 0 <= curvature["ci_high"]
    assert linearity["p_value"] > 0.01 and linearity["minimum_detectable"] is None


def test_the_primary_trend_is_tested_by_itself(table):
    trends = read_result_csv(table, Regressions).filter(term="generator_delta").rows(named=True)
    assert [(row["among"], row["primary"]) for row in trends] == [(None, True), ("again", False)]
    assert all(row["p_holm"] == pytest.approx(row["p_value"]) for row in trends)
    curvatures = read_result_csv(table, Regressions).filter(term="curvature").rows(named=True)
    assert all(row["p_holm"] == pytest.approx(min(1, 2 * row["p_value"])) for row in curvatures)


def test_deltas_that_do_not_matter_have_slopes_about_zero(regressions):
    slopes = [regressions["dimensions", name] for name in DIMENSIONS]
    assert all(row["vif"] >= 1 for row in slopes)
    assert sum(row["p_value"] < 0.05 for row in slopes) <= 1


def test_step_coherence_is_set_against_every_other_dimension(regressions):
    one = regressions["dimensions", "step_coherence"]
    for name in DIMENSIONS:
        if name != "step_coherence":
            row = regressions["dimensions", f"step_coherence - {name}"]
            assert row["estimate"] == pytest.approx(one["estimate"] - regressions["dimensions", name]["estimate"])
            assert row["vif"] is None


def test_a_judge_without_step_coherence_has_slopes_of_its_own_dimensions_only(tmp_path):
    rows = read_result_csv(tabulated(tmp_path, ("clarity",)), Regressions).filter(fit="dimensions")
    assert rows.select("term", "vif").rows() == [("clarity", pytest.approx(1))]


def test_a_fit_with_too_few_arms_is_left_out(regressions):
    assert not [key for key in regressions if key[0] == "tiny"]


def test_the_figure_shows_grids_and_slopes_and_says_them(table, tmp_path):
    gains = [
        result(chosen, BASE, gain, policy="p", rejected=rejected, generator_delta=ABILITY[chosen] - ABILITY[rejected])
        for chosen, rejected in SIDES
        for gain in [0.2 * (ABILITY[chosen] - ABILITY[rejected])]
    ]
    write_result_table(rows_to_table(gains, Results), Results, tmp_path / "grid.csv")
    figure = tmp_path / "regressions.png"
    plot_regressions(table, {"grid": tmp_path / "grid.csv"}, figure, settings=SuiteSettings(study="s", suite="ood"))
    assert all(figure.with_suffix(suffix).stat().st_size for suffix in (".png", ".svg", ".pdf"))
    caption = figure.with_suffix(".rst").read_text(encoding="utf-8").splitlines()
    said = [line for line in caption if line.startswith("- ")]
    assert len(said) == len(read_result_csv(table, Regressions))
    assert said[0].startswith("- ladder, generator_delta: ") and "[" in said[0]
    assert caption[0].startswith("**What does the gain depend on") and caption[-1].startswith("*Caveat.*")


def test_the_five_deltas_need_no_accuracy_of_generators(table, tmp_path):
    folder = table.parent
    deltas = read_result_csv(folder / "deltas.csv", GeneratorDeltas).clear()
    write_result_table(deltas, GeneratorDeltas, tmp_path / "deltas.csv")
    words = {"policy": "p", "method": "dpo", "judge": "j", "selection": "full"}
    arms, evals = [], {}
    for chosen, rejected in ALL:
        cell = Cell(**words, chosen=chosen, rejected=rejected, seed=0)
        evals[cell] = folder / f"{chosen}{rejected}0.parquet"
        arms.append(ArmSettings(**words, chosen=chosen, rejected=rejected, cells=[cell]))
    settings = RegressionsSettings(
        fits=[FitSettings(fit="dimensions", kind="dimensions", arms=arms)], models={}, suite="ood", ungraded=0
    )
    files = (tmp_path / "deltas.csv", folder / "whatif.csv", evals, {"p": folder / "base.parquet"}, tmp_path / "table.csv")
    tabulate_regressions(*files, settings=settings)
    assert set(DIMENSIONS) <= set(read_result_csv(tmp_path / "table.csv", Regressions)["term"])
