"""Correction of deltas: pairs that are selected by noisy deltas, where the true ones are known."""

import numpy as np
import polars as pl
import pytest

from prefdelta.audit.delta_correction import (
    DeltaCorrection,
    by_reference_judge,
    correct,
    error_variances,
    tabulate_delta_correction,
)
from prefdelta.audit.settings import CorrectedPairs, DeltaCorrectionSettings
from prefdelta.measure.settings import Bootstrap
from prefdelta.pairs.build import build_pairs
from prefdelta.pairs.settings import PairsSettings
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.lattice import PairSet
from prefdelta.tables.io import read_result_csv, read_table, write_table
from prefdelta.tables.stages import Pairs, Ratings, Traces

REPEATS = 5


def pairs(truth, noise, rng, stratum=None):
    """Pairs with deltas as judged and the estimated variance of their noise, from simulated repeats. Four of a prompt."""
    ratings = truth[:, None] + noise * rng.normal(size=(len(truth), REPEATS))
    return pl.DataFrame(
        {
            "pair_id": [str(i) for i in range(len(truth))],
            "prompt_id": [str(i // 4) for i in range(len(truth))],
            "stratum": np.zeros(len(truth), int) if stratum is None else stratum,
            "delta": ratings.mean(axis=1),
            "noise": ratings.var(axis=1, ddof=1) / REPEATS,
        }
    )


def top(frame, k):
    return frame.sort("delta", descending=True).head(k)["pair_id"]


def true_mean(truth, ids):
    return truth[ids.cast(pl.Int64).to_numpy()].mean()


def test_corrected_deltas_are_the_true_ones_where_all_is_normal():
    rng = np.random.default_rng(0)
    truth = rng.normal(0.3, 0.5, 4000)
    frame = pairs(truth, 1.0, rng)
    ids = top(frame, 400)
    found = correct(frame, ids, 500, 0)
    assert found["reliability"] == pytest.approx(0.25 / (0.25 + 1 / REPEATS), abs=0.03)
    assert found["judged"] - true_mean(truth, ids) > 0.4
    assert found["corrected"] == pytest.approx(true_mean(truth, ids), abs=0.05)


def test_the_order_of_pairs_changes_no_digit():
    rng = np.random.default_rng(5)
    frame = pairs(rng.normal(0.3, 0.5, 4000), 1.0, rng, stratum=rng.integers(0, 3, 4000))
    frame, ids = frame.with_columns(reference_judge=pl.Series(rng.normal(size=4000))), top(frame, 400)
    expected = correct(frame, ids, 50, 0), by_reference_judge(frame, ids)
    for seed in range(3):
        other = frame.sample(fraction=1, shuffle=True, seed=seed)
        assert (correct(other, ids, 50, 0), by_reference_judge(other, ids)) == expected


def test_its_intervals_hold_the_truth():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(150):
        truth = rng.normal(0.3, 0.5, 800)
        frame = pairs(truth, 1.0, rng)
        ids = top(frame, 200)
        found = correct(frame, ids, 300, 0)
        held += found["ci_low"] <= true_mean(truth, ids) <= found["ci_high"]
    assert held / 150 >= 0.88


def test_selections_within_strata_are_drawn_to_their_own_mean():
    rng = np.random.default_rng(2)
    stratum = np.arange(4000) % 2
    truth = rng.normal(0, 0.3, 4000) + 2 * stratum
    frame = pairs(truth, 1.0, rng, stratum)
    ids = pl.concat([top(part, 200) for part in frame.partition_by("stratum")])
    found = correct(frame, ids, 300, 0)
    assert found["corrected"] == pytest.approx(true_mean(truth, ids), abs=0.05)
    assert correct(frame.with_columns(stratum=0), ids, 300, 0)["corrected"] - true_mean(truth, ids) > 0.2


def test_pairs_that_were_not_selected_by_delta_keep_theirs():
    rng = np.random.default_rng(3)
    truth = rng.normal(0.3, 0.5, 2000)
    frame = pairs(truth, 1.0, rng)
    ids = frame["pair_id"].sample(300, seed=0)
    found = correct(frame, ids, 300, 0, by_delta=False)
    assert found["corrected"] == pytest.approx(found["judged"])
    assert found["ci_low"] < found["judged"] < found["ci_high"]


def test_without_repeats_nothing_is_corrected():
    rng = np.random.default_rng(4)
    frame = pairs(rng.normal(size=400), 1.0, rng).with_columns(noise=pl.lit(None, pl.Float64))
    found = correct(frame, top(frame, 40), 300, 0)
    assert found.pop("judged") > 1
    assert set(found.values()) == {None}


def test_few_large_deltas_among_many_small_ones_are_drawn_in_too_far():
    """Where it fails: noise is nearly all that varies, so the linear guess takes the few real deltas for noise, too."""
    rng = np.random.default_rng(5)
    truth = np.where(rng.random(4000) < 0.05, 2.0, 0.0)
    frame = pairs(truth, 1.5, rng)
    found = correct(frame, top(frame, 100), 300, 0)
    real = true_mean(truth, top(frame, 100))
    assert found["corrected"] < real - 0.5
    assert abs(found["judged"] - real) < abs(found["corrected"] - real)
    low = frame.sort("delta").head(1000)["pair_id"]
    assert correct(frame, low, 300, 0)["judged"] < correct(frame, low, 300, 0)["corrected"] < true_mean(truth, low)


def rated(truth, rng, repeats):
    """(trace, repeat, dimension) levels that a judge with noise of 0.8 levels gives, rounded and cut to the scale."""
    return np.clip((truth[:, None, :] + 0.8 * rng.normal(size=(len(truth), repeats, 5))).round(), 1, 5).astype(np.int8)


def test_error_variances_are_those_of_means():
    rng = np.random.default_rng(6)
    truth = np.full((3000, 5), 3.0)
    levels = rated(truth, rng, REPEATS)
    variances = error_variances(levels)
    assert variances[:, 0].mean() == pytest.approx(levels[..., 0].mean(axis=1).var(), rel=0.1)
    assert variances[:, 5].mean() == pytest.approx(levels.mean(axis=(1, 2)).var(), rel=0.1)
    assert np.isnan(error_variances(levels[:, :1])).all()


@pytest.fixture
def study(tmp_path):
    """Traces, ratings by a judge of five repeats (``j``), by one of one (``once``) and by the truth (``exact``), and pairs."""
    rng = np.random.default_rng(7)
    traces, ratings, pairs = {}, {}, {}
    n = 1200
    expected = {}
    for generator, share in (("good", 0.8), ("bad", 0.6)):
        ids = [f"q{i // 4:03}:{generator}:{i % 4}" for i in range(n)]
        truth = 1 + rng.binomial(4, share, (n, 5)).astype(float)
        texts = dict.fromkeys(("prompt", "text", "reasoning", "response", "answer"), "t")
        columns = {"trace_id": ids, "prompt_id": [name[:4] for name in ids], "generator": generator, **texts}
        columns |= {
            "sample": [i % 4 for i in range(n)],
            "correct": rng.random(n) < share,
            "n_tokens": [5] * n,
            "finish_reason": "stop",
        }
        traces[generator] = tmp_path / f"{generator}.parquet"
        write_table(pl.DataFrame(columns).select(list(Traces.to_schema().columns)), Traces, traces[generator])
        expected |= dict(zip(ids, rated(truth, rng, 200).mean(axis=1), strict=True))  # what the judge says in the long run
        for judge, levels in (
            ("j", rated(truth, rng, REPEATS)),
            ("once", rated(truth, rng, 1)),
            ("exact", truth[:, None, :].astype(np.int8)),
        ):
            trace, repeat, dimension = (axis.ravel() for axis in np.indices(levels.shape))
            frame = pl.DataFrame(
                {
                    "trace_id": [ids[i] for i in trace],
                    "judge": judge,
                    "dimension": [DIMENSIONS[i] for i in dimension],
                    "repeat": repeat,
                    "rating": levels.ravel().astype(int),
                    "reason": pl.Series([None] * levels.size, dtype=pl.String),
                }
            )
            ratings[judge, generator] = tmp_path / f"{judge}-{generator}.parquet"
            write_table(frame, Ratings, ratings[judge, generator])

    def tabulate(judge, selections, reference_judge="exact"):
        groups = []
        for name, drawn in selections.items():
            sets = [PairSet(judge, "good", "bad", selection) for selection in drawn]
            for named in sets:
                sides = [file for side in ("good", "bad") for file in (traces[side], ratings[judge, side])]
                pairs[named] = tmp_path / f"{judge}-{named.selection}.parquet"
                build_pairs(*sides, [], pairs[named], settings=PairsSettings(judge=judge, selection=named.selection, seed=0))
            groups.append(CorrectedPairs(judge=judge, chosen="good", rejected="bad", selection=name, pair_sets=sets))
        settings = DeltaCorrectionSettings(
            groups=groups, seed=0, reference_judge=reference_judge, bootstrap=Bootstrap(n_resamples=300, seed=0)
        )
        tabulate_delta_correction(traces, ratings, pairs, tmp_path / "c.csv", settings=settings)
        found = {row["selection"]: row for row in read_result_csv(tmp_path / "c.csv", DeltaCorrection).iter_rows(named=True)}
        return found, {named.selection: read_table(file, Pairs) for named, file in pairs.items()}

    return expected, tabulate


def test_with_rounding_and_the_ends_of_the_scale_it_is_still_closer(study):
    expected, tabulate = study
    selections = [
        "top100-factuality",
        "bottom100-overall",
        "top200-overall",
        "min1-step_coherence",
        "top150-overall-within_correctness",
    ]
    table, selected = tabulate("j", {name: [name] for name in selections})
    for name, row in table.items():
        file = selected[name]
        dimension = DIMENSIONS.index(row["criterion"]) if row["criterion"] in DIMENSIONS else slice(None)
        chosen, rejected = (
            np.mean([expected[trace][dimension].mean() for trace in file[f"{side}_trace_id"]]) for side in ("chosen", "rejected")
        )
        truth = chosen - rejected
        assert row["judged"] == pytest.approx(file[f"delta_{row['criterion']}"].mean())
        assert abs(row["corrected"] - truth) < abs(row["judged"] - truth) / 2
        assert row["n_pairs"] == len(file)
        assert 0 < row["reliability"] < 1
        # The reference's scale is wider: its ratings are not pulled in by the ends.
        assert abs(row["reference_judge_scaled"] - truth) < 0.1 * abs(truth)


def test_the_best_of_both_generators_samples_over_the_worst_is_closer_without_noise(study):
    expected, tabulate = study
    names = ["best_over_worst-40-overall", "best_over_low-40-step_coherence", "right_over_wrong-10", "band80-overall-0to1-draw0"]
    table, selected = tabulate("j", {name: [name] for name in names})
    for name, row in table.items():
        file = selected[name]
        dimension = DIMENSIONS.index(row["criterion"]) if row["criterion"] in DIMENSIONS else slice(None)
        chosen, rejected = (
            np.mean([expected[trace][dimension].mean() for trace in file[f"{side}_trace_id"]]) for side in ("chosen", "rejected")
        )
        assert row["judged"] == pytest.approx(file[f"delta_{row['criterion']}"].mean())
        if name.startswith("right_over_wrong"):
            assert row["corrected"] == pytest.approx(row["judged"])
        elif name.startswith("best"):
            assert abs(row["corrected"] - (chosen - rejected)) < abs(row["judged"] - (chosen - rejected)) / 2


def test_random_and_flipped_pairs_of_several_cells_are_as_judged(study):
    _, tabulate = study
    drawn = {"random100": ["random100-draw0", "random100-draw1"], "flipped-100": ["flipped-100"], "full": ["full"]}
    table, _ = tabulate("j", drawn)
    assert table["random100"]["n_pairs"] == 200
    assert table["flipped-100"]["judged"] < 0 < table["random100"]["judged"]
    assert table["flipped-100"]["reference_judge"] < 0
    for row in table.values():
        assert row["corrected"] == pytest.approx(row["judged"])
        assert row["ci_low"] < row["judged"] < row["ci_high"]
    assert table["full"]["reference_judge_scaled"] == pytest.approx(table["full"]["judged"])


def test_a_judge_with_one_rating_and_no_reference_has_only_its_own_word(study):
    _, tabulate = study
    table, _ = tabulate("once", {"top100-overall": ["top100-overall"]}, reference_judge=None)
    row = table["top100-overall"]
    assert row["judged"] > 0
    unknown = ("corrected", "ci_low", "ci_high", "reference_judge", "reference_judge_scaled", "reliability")
    assert [row[name] for name in unknown] == [None] * 6


def test_the_scale_of_the_reference_is_found_through_the_judges_noise():
    rng = np.random.default_rng(8)
    reference = rng.normal(size=4000)
    frame = pl.DataFrame({"pair_id": [str(i) for i in range(4000)], "reference_judge": reference})
    frame = frame.with_columns(delta=0.1 + 0.5 * reference + rng.normal(size=4000))
    ids = top(frame, 400)
    found = by_reference_judge(frame, ids)
    assert found["reference_judge"] == pytest.approx(true_mean(reference, ids))
    assert found["reference_judge_scaled"] == pytest.approx(0.1 + 0.5 * found["reference_judge"], abs=0.05)
