"""Regressions of the gain over arms: are the slopes those of least squares, and do their intervals hold the truth?"""

import numpy as np
import polars as pl
import pytest
from build import result

from prefdelta.answers.regressions import LeastSquares, Regressions, plot_regressions, tabulate_regressions
from prefdelta.answers.settings import RegressionsSettings
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.whatif import WhatIf
from prefdelta.measure.intervals import Interval
from prefdelta.measure.settings import ArmSettings, Bootstrap, SuiteSettings
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.lattice import Cell
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Predictions

ABILITY = {"a": 20.0, "b": 40.0, "c": 60.0, "d": 80.0}
SIDES = [(chosen, rejected) for chosen in ABILITY for rejected in ABILITY if chosen != rejected]


def test_slopes_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    terms, gains = rng.normal(size=(20, 3)), rng.normal(size=20)
    fit = LeastSquares(terms, gains)
    expected = np.linalg.lstsq(np.column_stack([np.ones(20), terms]), gains, rcond=None)[0][1:]
    assert [fit.contrast(unit) @ gains for unit in np.eye(3)] == pytest.approx(expected)


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


def test_the_interval_holds_the_slope_although_arms_scatter_about_the_plane():
    rng = np.random.default_rng(2)
    terms = np.array([(ABILITY[chosen], ABILITY[rejected]) for chosen, rejected in SIDES])
    unit, covered = np.array([1.0, 0.0]), 0
    for _ in range(1000):
        gains = 0.3 * terms[:, 0] - 0.1 * terms[:, 1] + rng.normal(0, 5, len(terms))
        fit = LeastSquares(terms, gains)
        estimate = float(fit.contrast(unit) @ gains)
        interval = fit.widened(Interval(estimate, estimate, estimate, 0.0, 1.0), unit)
        covered += interval.ci_low <= 0.3 <= interval.ci_high
    assert 0.93 <= covered / 1000 <= 0.97


def write_evals(path, rng, chance, n_items=300, samples=4):
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


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A study in which the gain is 0.2 x chosen - 0.2 x rejected accuracy: the delta alone counts."""
    folder = tmp_path_factory.mktemp("study")
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
        for chosen, rejected in SIDES
    ]
    write_result_table(rows_to_table(accuracies, GeneratorDeltas), GeneratorDeltas, folder / "deltas.csv")
    arms, evals = [], {}
    for chosen, rejected in SIDES:
        words = {"policy": "p", "method": "dpo", "judge": "j", "chosen": chosen, "rejected": rejected, "selection": "full"}
        cells = [Cell(**words, seed=seed) for seed in range(3)]
        for cell in cells:
            chance = 0.5 + 0.002 * (ABILITY[chosen] - ABILITY[rejected]) + rng.normal(0, 0.01)
            evals[cell] = folder / f"{chosen}{rejected}{cell.seed}.parquet"
            write_evals(evals[cell], rng, chance)
        arms.append(ArmSettings(**words, cells=cells))
    write_evals(folder / "base.parquet", rng, 0.5)
    schema = WhatIf.to_schema().columns
    whatif = [
        {name: 1 if column.dtype.type != pl.String else "x" for name, column in schema.items()}
        | arm.words
        | {f"delta_{name}": rng.uniform(-1, 1) for name in DIMENSIONS}
        for arm in arms
    ]
    write_result_table(rows_to_table(whatif, WhatIf), WhatIf, folder / "whatif.csv")
    ladder = [arm for arm in arms if arm.rejected == "a"]
    fits = [
        {"fit": "ladder", "kind": "trend", "arms": ladder},
        {"fit": "grid", "kind": "quality", "arms": arms},
        {"fit": "dimensions", "kind": "dimensions", "arms": arms},
        {"fit": "tiny", "kind": "quality", "arms": arms[:4]},
    ]
    settings = RegressionsSettings(fits=fits, suite="ood", bootstrap=Bootstrap(n_resamples=400, seed=0))
    files = (folder / "deltas.csv", folder / "whatif.csv", evals, {"p": folder / "base.parquet"}, folder / "regressions.csv")
    tabulate_regressions(*files, settings=settings)
    return folder / "regressions.csv"


@pytest.fixture(scope="module")
def regressions(table):
    return {(row["fit"], row["term"]): row for row in read_result_csv(table, Regressions).iter_rows(named=True)}


def test_where_the_delta_alone_counts_the_grid_says_so(regressions):
    chosen, rejected, both = (regressions["grid", term] for term in ("chosen", "rejected", "chosen + rejected"))
    assert chosen["ci_low"] <= 2 <= chosen["ci_high"]
    assert rejected["ci_low"] <= -2 <= rejected["ci_high"]
    assert rejected["p_value"] < 0.01, "so it is not the chosen side alone"
    assert both["estimate"] == pytest.approx(chosen["estimate"] + rejected["estimate"])
    assert both["ci_low"] <= 0 <= both["ci_high"]
    assert chosen["r2"] > 0.8
    assert both["vif"] is None


def test_the_trend_of_a_ladder_is_for_ten_points_of_delta(regressions):
    trend = regressions["ladder", "generator_delta"]
    assert trend["ci_low"] <= 2 <= trend["ci_high"]
    assert trend["p_value"] < 0.01
    assert trend["n_arms"] == 3


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
    assert said[0].startswith("- ladder, p, generator_delta: rises by +")
    assert caption[0].startswith("**What does the gain depend on") and caption[-1].startswith("*Caveat.*")
