"""Tables and figures of experiments: are differences those of the evaluations, and does the caption say them?"""

import subprocess
import sys

import build
import numpy as np
import polars as pl
import pytest
from build import result

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.findings.experiment import BASE, Results, tabulate_experiment
from prefdelta.findings.experiment_figures import plot_experiment
from prefdelta.findings.profile import plot_profile, tabulate_profile
from prefdelta.findings.settings import ExperimentFigureSettings, ExperimentSettings, FigureSettings
from prefdelta.measure.intervals import Interval, holm
from prefdelta.measure.settings import Bootstrap, ComparedArm
from prefdelta.study.lattice import Cell
from prefdelta.tables.io import read_result_csv, read_table, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Pairs, Predictions, Traces

WORDS = {"policy": "p", "method": "dpo", "judge": "j", "chosen": "c", "rejected": "r"}
RIGHT = {"c": [True, True, True, False], "r": [True, False, False, False]}  # 75 and 25 points on either prompt


def arm(selection, versus=(), seeds=2):
    cells = [Cell(**WORDS, selection=selection, seed=seed) for seed in range(seeds)]
    return ComparedArm(
        **WORDS, selection=selection, arm=selection, versus={name: place for place, name in enumerate(versus)}, cells=cells
    )


def predictions(path, correct):
    rows = [
        {
            "item_id": f"i{item}",
            "suite": "ood",
            "task": "t",
            "decoding": decoding,
            "sample": 0,
            "text": "",
            "correct": is_right,
            "n_tokens": 1,
            "finish_reason": "stop",
        }
        for decoding in ("sampled", "greedy")
        for item, is_right in enumerate(correct)
    ]
    write_table(rows_to_table(rows, Predictions), Predictions, path)
    return path


def write_traces(folder):
    files = {}
    for name, right in RIGHT.items():
        files[name] = folder / f"{name}.parquet"
        write_table(build.traces(name, n_prompts=2, samples=4, correct=right * 2), Traces, files[name])
    return files


def settings_of(*arms, **changes):
    draws = {"c": ["c"], "r": ["r"]}
    bootstrap = Bootstrap(n_resamples=50, seed=0, ungraded=0.2)
    return ExperimentSettings(experiment="e", arms=list(arms), draws=draws, bootstrap=bootstrap, **changes)


def write_trained(path):
    """The manifest of a cell."""
    budget = {"n_pairs": 5, "n_completion_tokens": 1000, "n_steps": 7, "mean_delta": 1.0, "correct_delta": 40.0, "n_identical": 2}
    write_manifest(path, budget | {"n_truncated": {"chosen": 1, "rejected": 2}})
    return path


def test_an_experiments_table_compares_each_arm_with_the_base_policy_and_its_controls(tmp_path):
    arms, shares = [arm("top5-overall", ["full"]), arm("full")], {"top5-overall": (0.8, 0.6), "full": (0.5, 0.4)}
    evals, manifests = {}, {}
    for made in arms:
        for cell in made.cells:
            folder = tmp_path / f"{cell.selection}{cell.seed}"
            folder.mkdir()
            evals[cell] = predictions(folder / "e.parquet", np.arange(20) < 20 * shares[cell.selection][cell.seed])
            manifests[cell] = folder / "manifest.json"
            n_pairs = 5 if made.arm == "top5-overall" else 10
            budget = {"n_pairs": n_pairs, "n_completion_tokens": 1000, "n_steps": 7, "mean_delta": 1.0 + cell.seed}
            budget |= {"correct_delta": 40.0 + cell.seed, "n_identical": 2}
            write_manifest(manifests[cell], budget | {"n_truncated": {"chosen": 1, "rejected": 2}})
    bases = {"p": predictions(tmp_path / "base.parquet", np.arange(20) < 6)}
    table = tmp_path / "table.csv"
    tabulate_experiment(write_traces(tmp_path), evals, manifests, bases, table, settings=settings_of(*arms))
    results = read_result_csv(table, Results)
    found = results.filter(decoding="sampled").select("arm", "versus", "estimate", "budget")
    expected = [
        ("top5-overall", None, 70, None),
        ("top5-overall", BASE, 40, None),
        ("top5-overall", "full", 25, "pairs -50 %"),
        ("full", None, 45, None),
        ("full", BASE, 15, None),
    ]
    assert [row[:2] + row[3:] for row in found.rows()] == [row[:2] + row[3:] for row in expected]
    assert found["estimate"].to_list() == pytest.approx([estimate for _, _, estimate, _ in expected])
    assert results["generator_delta"].unique().to_list() == pytest.approx([50])
    assert results.select("mean_delta", "correct_delta", "n_identical").unique().rows() == [(1.5, 40.5, 2)]
    sampled, greedy = (results.filter(decoding=decoding) for decoding in ("sampled", "greedy"))
    assert sampled["p_mcnemar"].null_count() == len(sampled) and greedy["p_mcnemar"].null_count() == 2
    assert all(row["p_holm"] >= row["p_value"] for row in results.iter_rows(named=True) if row["versus"])


def test_an_item_without_a_graded_answer_is_left_out_of_all_evaluations_and_counted_where_it_is(tmp_path):
    arms = [arm("top5-overall", ["full"]), arm("full")]
    # Item 0 is unknown in one seed of one arm, item 1 in the base policy: what others answered to them does not count.
    answers = {
        "top5-overall": [[None, *[True] * 9], [False, False, *[True] * 8]],
        "full": [[True, True, *[False] * 8]] * 2,
    }
    evals, manifests = {}, {}
    for cell in [cell for made in arms for cell in made.cells]:
        name = f"{cell.selection}{cell.seed}"
        evals[cell] = predictions(tmp_path / f"{name}.parquet", answers[cell.selection][cell.seed])
        (tmp_path / name).mkdir()
        manifests[cell] = write_trained(tmp_path / name / "manifest.json")
    bases = {"p": predictions(tmp_path / "base.parquet", [True, None, *[True] * 4, *[False] * 4])}
    table = tmp_path / "table.csv"
    tabulate_experiment(write_traces(tmp_path), evals, manifests, bases, table, settings=settings_of(*arms))
    results = read_result_csv(table, Results)
    for decoding in ("sampled", "greedy"):
        found = results.filter(decoding=decoding).select("arm", "versus", "estimate", "n_items", "n_ungraded").rows()
        assert found == [
            ("top5-overall", None, 100, 8, 1),
            ("top5-overall", BASE, 50, 8, 2),
            ("top5-overall", "full", 100, 8, 1),
            ("full", None, 0, 8, 0),
            ("full", BASE, -50, 8, 1),
        ]


def shares_of(folder, shares, **changes):
    """The sampled and greedy `Results` of arms with these (shares of right answers by seed, controls), of 20 items."""
    arms = [arm(name, versus) for name, (_, versus) in shares.items()]
    evals, manifests = {}, {}
    for cell in [cell for made in arms for cell in made.cells]:
        name = f"{cell.selection}{cell.seed}"
        right = np.arange(20) < 20 * shares[cell.selection][0][cell.seed]
        evals[cell] = predictions(folder / f"{name}.parquet", right)
        (folder / name).mkdir()
        manifests[cell] = write_trained(folder / name / "manifest.json")
    bases = {"p": predictions(folder / "base.parquet", np.arange(20) >= 14)}
    settings = settings_of(*arms, **changes)
    tabulate_experiment(write_traces(folder), evals, manifests, bases, folder / "table.csv", settings=settings)
    return read_result_csv(folder / "table.csv", Results)


THREE = {
    "top5-overall": ((0.8, 0.7), ["full", "random5"]),
    "random5": ((0.5, 0.6), ["full"]),
    "full": ((0.5, 0.45), []),
}


def test_comparisons_with_one_control_are_corrected_together_and_the_primary_one_by_itself(tmp_path):
    primary = {"arm": "top5-overall", "versus": BASE, "suite": "ood"}
    results = shares_of(tmp_path, THREE, primary=primary).filter(pl.col("versus").is_not_null())
    greedy, sampled = (results.filter(decoding=decoding) for decoding in ("greedy", "sampled"))
    assert [row["primary"] for row in sampled.filter(versus=BASE).rows(named=True)] == [True, False, False]
    assert not greedy["primary"].any()
    families = [(greedy, BASE), (sampled.filter(~pl.col("primary")), BASE), (sampled.filter("primary"), BASE)]
    families += [(sampled, "full"), (sampled, "random5")]
    for (rows, versus), size in zip(families, (3, 2, 1, 2, 1), strict=True):
        found = rows.filter(versus=versus)
        assert found["p_holm"].to_list() == pytest.approx(holm(found["p_value"].to_list())) and len(found) == size
        for row in found.iter_rows(named=True):
            test = Interval(*(row[name] for name in ("estimate", "ci_low", "ci_high", "standard_error", "freedom")))
            assert row["minimum_detectable"] == pytest.approx(test.minimum_detectable(0.05 / size))
            assert row["adjusted_high"] >= row["ci_high"] - 1e-9 or row["adjusted_high"] in (0, 100)


def test_a_table_counts_the_items_that_greedy_answers_gain_and_lose(tmp_path):
    results = shares_of(tmp_path, THREE).filter(pl.col("versus").is_not_null())
    found = {(row["arm"], row["versus"]): row for row in results.filter(decoding="greedy").iter_rows(named=True)}
    row = found["top5-overall", BASE]  # 16 and 14 right, of which base has 2 and 0 of its 6
    assert (row["n_gained"], row["n_lost"]) == (14, 5)
    assert row["n_gained"] - row["n_lost"] == pytest.approx(row["estimate"] / 100 * row["n_items"])
    assert (found["top5-overall", "full"]["n_gained"], found["top5-overall", "full"]["n_lost"]) == (5.5, 0)
    assert results.filter(decoding="sampled")["n_gained"].null_count() == len(results) / 2


def test_a_small_difference_is_equivalence_only_where_a_smallest_effect_is_configured(tmp_path):
    alike = {"top5-overall": ((0.5, 0.5), ["full"]), "full": ((0.5, 0.5), [])}
    (tmp_path / "with").mkdir()
    found = shares_of(tmp_path / "with", alike, smallest_effect=3.0).filter(versus="full", decoding="sampled").row(0, named=True)
    assert (found["equivalent_within"], found["p_equivalent"]) == (3, 0)
    (tmp_path / "without").mkdir()
    found = shares_of(tmp_path / "without", alike).filter(versus="full", decoding="sampled").row(0, named=True)
    assert (found["equivalent_within"], found["p_equivalent"]) == (None, None)


@pytest.mark.parametrize("kind", ["ladder", "bars", "sweep", "steps", "grid"])
def test_a_figure_of_every_kind_says_what_was_found(kind, tmp_path):
    chosen = ["weak", "strong"]
    rows = [
        result(
            name, versus, estimate + more, suite=suite, decoding=decoding, generator_delta=10.0 * (1 + place), n_pairs=10 + place
        )
        | {"primary": None if versus is None else name == "strong" and decoding == "sampled"}
        for place, name in enumerate(chosen)
        for suite in ("id", "ood")
        for decoding, more in (("sampled", 0), ("greedy", 5))
        for versus, estimate in ((None, 60.0), (BASE, 11.0 * place - 3))
    ]
    write_result_table(rows_to_table(rows, Results), Results, tmp_path / "table.csv")
    content = {"title": "A ladder", "question": "Does it help?", "caveat": "All small."}
    settings = ExperimentFigureSettings(**content, figure=kind, arms=chosen, suites=["id", "ood"], series=["", ""])
    figure = tmp_path / "figure.png"
    plot_experiment(tmp_path / "table.csv", figure, settings=settings)
    assert all(figure.with_suffix(suffix).stat().st_size for suffix in (".png", ".svg", ".pdf"))
    assert figure.with_suffix(".rst").read_text(encoding="utf-8") == (
        "**Does it help?**\n\n"
        "Accuracy on ood, sampled and greedy, and paired differences (points), with 95 % intervals, corrected for the number of "
        "comparisons with the same control:\n\n"
        "- **strong** 60.0 (3 seeds). Against base policy (primary, not corrected): rises by +8.0 [+5.0, +11.0]. "
        "Greedy 65.0; against base policy: rises by +13.0 [+10.0, +16.0].\n"
        "- **weak** 60.0 (3 seeds). Against base policy: falls by -3.0 [-6.0, +0.0]. "
        "Greedy 65.0; against base policy: rises by +2.0 [-1.0, +5.0].\n\n"
        "*Caveat.* All small.\n"
    )


def test_a_profile_of_traces_that_nothing_is_known_to_be_right_of_has_no_generator_delta(tmp_path):
    write_table(build.pairs(40), Pairs, tmp_path / "pairs.parquet")
    traces, words = write_traces(tmp_path), {**WORDS, "selection": "full", "arm": "c over r", "versus": {}}
    for file in traces.values():
        write_table(read_table(file, Traces).with_columns(correct=pl.lit(None, pl.Boolean)), Traces, file)
    files, table = {"c over r": tmp_path / "pairs.parquet"}, tmp_path / "table.csv"
    tabulate_profile(traces, files, table, settings=settings_of(ComparedArm(**words)))
    assert read_result_csv(table, Results)["generator_delta"].to_list() == [None] * 6


def test_a_profile_has_the_mean_delta_of_every_criterion(tmp_path):
    pairs = build.pairs(40)
    write_table(pairs, Pairs, tmp_path / "pairs.parquet")
    files, table = {"c over r": tmp_path / "pairs.parquet"}, tmp_path / "table.csv"
    words = {**WORDS, "selection": "full", "arm": "c over r", "versus": {}}
    tabulate_profile(write_traces(tmp_path), files, table, settings=settings_of(ComparedArm(**words)))
    results = read_result_csv(table, Results)
    for row in results.iter_rows(named=True):
        assert row["estimate"] == pytest.approx(pairs[f"delta_{row['dimension']}"].mean())
        assert (row["n_items"], row["n_pairs"], row["generator_delta"]) == (20, 40, pytest.approx(50))
    content = {"title": "Profiles", "question": "How do they differ?", "caveat": "Few."}
    figure = tmp_path / "figure.png"
    settings = FigureSettings(**content, figure="profile", arms=["c over r"], suites=["ood"])
    plot_profile(table, files, figure, settings=settings)
    caption = figure.with_suffix(".rst").read_text(encoding="utf-8")
    first = results.row(0, named=True)
    assert f"- **c over r**: factuality {first['estimate']:+.2f} [{first['ci_low']:+.2f}, {first['ci_high']:+.2f}]" in caption


def test_what_tabulates_does_not_load_matplotlib():
    modules = [f"prefdelta.findings.{name}" for name in ("experiment", "profile", "capability", "sharpening", "generator_deltas")]
    modules.append("prefdelta.answers.regressions")
    code = f"import sys, {', '.join(modules)}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
