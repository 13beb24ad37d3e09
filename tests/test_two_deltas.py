"""Two deltas: are the slopes of crossed gains those that they were made with, and do their intervals hold them?"""

import build
import numpy as np
import polars as pl
import pytest

from prefdelta.answers.settings import TwoDeltasSettings
from prefdelta.answers.two_deltas import TERMS, Crossing, TwoDeltas, tabulate_two_deltas, two_deltas_claims
from prefdelta.audit.delta_correction import DeltaCorrection
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.experiment_figures import plot_experiment
from prefdelta.findings.settings import ExperimentFigureSettings
from prefdelta.measure.intervals import item_weights
from prefdelta.measure.settings import Bootstrap, ComparedArm
from prefdelta.study.lattice import Cell
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Predictions

GENERATORS = np.array([0.0, 10.0, 22.0, 35.0, 60.0])  # points
LEVELS = np.array([-0.5, 0.0, 0.5, 1.0])


def gains(alpha, beta, gamma=0.0, levels=None):
    """Points by pair and band: ``alpha`` for 10 points, ``beta`` for a level, ``gamma`` for both, from their means."""
    along, levels = GENERATORS[:, None] / 10, np.broadcast_to(LEVELS, (5, 4)) if levels is None else levels
    return 3 + alpha * along + beta * levels + gamma * (along - along.mean()) * (levels - levels.mean())


def slopes(made, levels=None):
    crossing = Crossing.of(GENERATORS, np.broadcast_to(LEVELS, (5, 4)) if levels is None else levels)
    return (crossing.coefficients * made).sum(axis=(1, 2))


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(2, 5, 0), (0, 5, 0), (2, 0, 0), (1, -3, 0.7)])
def test_gains_of_both_deltas_give_their_slopes_back(alpha, beta, gamma):
    assert slopes(gains(alpha, beta, gamma)) == pytest.approx([alpha, beta, gamma])
    # A band's deltas need not be quite the same for all generators.
    uneven = LEVELS + np.random.default_rng(0).normal(0, 0.1, (5, 4)) + GENERATORS[:, None] / 200
    assert slopes(gains(alpha, beta, 0, uneven), uneven)[:2] == pytest.approx([alpha, beta])


def test_a_delta_that_does_not_vary_has_no_slope():
    assert Crossing.of(np.full(5, 10.0), np.broadcast_to(LEVELS, (5, 4))) is None
    assert Crossing.of(GENERATORS, np.full((5, 4), 0.5)) is None


@pytest.mark.parametrize("scatter", [0.0, 2.0])
def test_intervals_hold_the_slopes_whether_or_not_generators_differ_in_more_than_their_delta(scatter):
    """Without ``scatter`` there are only seeds and items; else each pair of generators has a height and a slope of its own."""
    rng, truth, n = np.random.default_rng(1), np.array([1.5, 4.0, 0.5]), 300
    crossing, weights = Crossing.of(GENERATORS, np.broadcast_to(LEVELS, (5, 4))), item_weights((60,), 100, 0)
    covered = np.zeros(3)
    for _ in range(n):
        own = rng.normal(0, scatter, (5, 1)) + rng.normal(0, scatter, (5, 1)) * LEVELS
        of_pair = rng.normal(0, 1, (5, 1, 3, 1))  # of a pair's draws of traces, which its arms share
        of_seed, of_items = rng.normal(0, 2, (5, 4, 3, 1)), rng.normal(0, 20, (5, 4, 3, 60))
        scores = (gains(*truth) + own)[..., None, None] + of_pair + of_seed + of_items
        found = crossing.intervals(scores, weights, 0, (60,))
        covered += [one.ci_low <= true <= one.ci_high for one, true in zip(found, truth, strict=True)]
    assert (covered / n >= 0.93).all(), covered / n
    assert (covered / n <= 0.995).all(), covered / n


def evaluation(path, points, rng):
    """Predictions of 300 items, of which ``points`` per cent are right."""
    rows = [
        {"item_id": f"i{item}", "suite": "ood", "task": "t", "decoding": decoding, "sample": 0, "text": ""}
        | {"correct": bool(right), "n_tokens": 1, "finish_reason": "stop"}
        for decoding in ("sampled", "greedy")
        for item, right in enumerate(rng.random(300) < points / 100)
    ]
    write_table(rows_to_table(rows, Predictions), Predictions, path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Settings and files of an experiment in which 10 points of generators buy 2 points, and a level buys 10, in DPO alone."""
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(2)
    arms, evals, results, corrections = [], {}, [], []
    for method in ("dpo", "sft"):
        for place, points in enumerate(GENERATORS):
            for level in LEVELS[::3]:
                selection = f"band8-overall-{f'{level:g}'.replace('-', 'minus')}to{level + 0.5:g}"
                words = {"policy": "p", "method": method, "judge": "j", "chosen": f"g{place}", "rejected": "worst"}
                cells = [Cell(**words, selection=f"{selection}-draw{seed}", seed=seed) for seed in range(2)]
                name = f"{method}, {selection}, g{place} over worst"
                arms.append(ComparedArm(**words, selection=selection, arm=name, versus={}, cells=cells))
                gain = 0.2 * points + 10 * level if method == "dpo" else 0.0
                known = {**words, "selection": selection, "generator_delta": points, "mean_delta": level}
                # A level is 30 points of correctness, and so is what generators differ by.
                known["correct_delta"] = 30 * level + points
                results += [build.result(name, BASE, gain, decoding, **known) for decoding in ("sampled", "greedy")]
                deltas = {"judged": level, "corrected": level / 2, "reliability": 0.5, "criterion": "overall", "n_pairs": 16}
                corrections.append({**{key: known[key] for key in ("judge", "chosen", "rejected", "selection")}, **deltas})
                if method == "sft":
                    evals |= dict.fromkeys(cells, evaluation(folder / "nothing.parquet", 40, rng))
                else:
                    evals |= {cell: evaluation(folder / f"{place}{level}{cell.seed}.parquet", 40 + gain, rng) for cell in cells}
    corrections = pl.DataFrame(corrections).unique(maintain_order=True).rows(named=True)
    for rows, model, name in ((results, Results, "crossed"), (corrections, DeltaCorrection, "corrections")):
        write_result_table(rows_to_table(rows, model), model, folder / f"{name}.csv")
    settings = TwoDeltasSettings(arms={"crossed": arms}, suite="ood", bootstrap=Bootstrap(n_resamples=200, seed=0))
    files = {"crossed": folder / "crossed.csv"}, folder / "corrections.csv", evals, folder / "two_deltas.csv"
    tabulate_two_deltas(*files, settings=settings)
    return folder


def test_a_study_with_both_deltas_finds_what_each_buys_by_method_and_decoding(study):
    table = read_result_csv(study / "two_deltas.csv", TwoDeltas)
    assert len(table) == 2 * 2 * 3 * len(TERMS)
    # At equal correctness, generators that differ more have pairs that differ less.
    for deltas, points, level in (("judged", 2, 10), ("corrected", 2, 20), ("graded", 2 - 10 / 3, 10 / 3)):
        truth = {"generator_delta": points, "sample_delta": level, "interaction": 0}
        for row in table.filter(method="dpo", deltas=deltas).iter_rows(named=True):
            half = row["ci_high"] - row["estimate"]
            assert abs(row["estimate"] - truth[row["term"]]) < 1.5 * half
            assert row["term"] == "interaction" or deltas == "graded" or row["p_value"] < 0.05
    assert (table.filter(method="sft")["p_value"] > 0.01).all()
    assert table.select("n_generator_pairs", "n_selections", "n_seeds", "n_items").unique().rows() == [(5, 2, 2, 300)]


def test_what_is_said_of_it_is_by_judged_deltas_and_has_the_others_as_a_caveat(study):
    table = read_result_csv(study / "two_deltas.csv", TwoDeltas)
    said = two_deltas_claims(table.filter(method="dpo"))
    assert [what for what, _, _ in said] == [
        f"{words} ({where})" for where in ("dpo", "dpo, greedy answers") for words in TERMS.values()
    ]
    assert all(row["deltas"] == "judged" for _, row, _ in said)
    assert said[1][2].startswith("By deltas without the judge's noise: rises by +")
    assert "Between pairs that differ equally in correctness: not settled" in said[0][2]
    assert "differ" not in said[2][2]


def test_the_figure_has_a_line_for_each_pair_of_generators(study, tmp_path):
    arms = read_result_csv(study / "crossed.csv", Results)["arm"].unique(maintain_order=True).to_list()
    content = {"title": "t", "question": "q", "caveat": "c", "figure": "crossed", "suites": ["ood"]}
    settings = ExperimentFigureSettings(**content, arms=arms, series=arms)
    table = pl.concat(
        [
            read_result_csv(study / "crossed.csv", Results),
            rows_to_table([build.result(arm, None, 50.0) for arm in arms], Results),
        ]
    )
    write_result_table(table, Results, tmp_path / "crossed.csv")
    plot_experiment(tmp_path / "crossed.csv", tmp_path / "crossed.png", settings=settings)
    assert "dpo, g4 over worst (+60)" in (tmp_path / "crossed.svg").read_text()
    caption = (tmp_path / "crossed.rst").read_text()
    assert "- **g4 over worst** (dpo, +60): " in caption and " at -0.50, " in caption
