"""Claims: are they worded from the corrected test, and do they say what speaks against them?"""

import pytest
from build import result

from prefdelta.answers.claims import DELTA_LEARNING, DIMENSIONS, JUDGE, SELECTED, SHARPENING, Claims, tabulate_claims
from prefdelta.answers.regressions import Regressions
from prefdelta.answers.settings import ClaimsSettings
from prefdelta.answers.two_deltas import TwoDeltas
from prefdelta.audit.delta_correction import DeltaCorrection
from prefdelta.audit.judge_audit import JudgeAudit
from prefdelta.findings.capability import Capability
from prefdelta.findings.experiment import Results
from prefdelta.findings.sharpening import BEST, Sharpening
from prefdelta.forecast.prediction import Prediction
from prefdelta.measure.verdict import percentile_verdict, verdict
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table


@pytest.mark.parametrize(
    ("estimate", "low", "high", "p", "within", "words"),
    [
        (3.0, 1.0, 5.0, 0.01, None, "rises by +3.0 [+1.0, +5.0]"),
        (-3.0, -5.0, -1.0, 0.01, None, "falls by -3.0 [-5.0, -1.0]"),
        (1.0, -2.0, 4.0, 0.5, None, "not settled, up to 4.0 can't be excluded: +1.0 [-2.0, +4.0]"),
        (-1.0, -4.0, 2.0, 0.5, None, "not settled, up to 4.0 can't be excluded: -1.0 [-4.0, +2.0]"),
        (0.3, -1.0, 1.6, 0.5, 2.0, "equivalent within +-2: +0.3 [-1.0, +1.6] (90 %)"),
        (0.8, 0.1, 1.5, 0.02, 2.0, "rises by +0.8 [+0.1, +1.5], within +-2"),
    ],
)
def test_a_verdict_is_a_direction_an_equivalence_or_not_settled(estimate, low, high, p, within, words):
    row = {"estimate": estimate, "adjusted_low": low, "adjusted_high": high, "p_holm": p, "equivalent_within": within}
    assert verdict(row) == words


def test_where_there_are_percentiles_only_they_are_the_verdict():
    assert percentile_verdict(3.0, 0.1, 5.9, 1, ("above", "below")) == "above +3.0 [+0.1, +5.9]"
    assert percentile_verdict(3.0, -0.1, 6.1, 1, ("above", "below")).startswith("not settled, up to 6.1 can't be excluded")


def slope(fit, kind, term, estimate, p, p_holm=None, **changes):
    interval = {"estimate": estimate, "ci_low": estimate - 1, "ci_high": estimate + 1}
    interval |= {"adjusted_low": estimate - 1.5, "adjusted_high": estimate + 1.5}
    row = {
        "fit": fit,
        "policy": "policy",
        "kind": kind,
        "term": term,
        "suite": "ood",
        **interval,
        "p_value": p,
        "minimum_detectable": 1.5,
    }
    row |= {"primary": False, "p_holm": p if p_holm is None else p_holm, "standard_error": 0.5, "freedom": 3.0}
    return {**row, "vif": 1.0, "r2": 0.5, "n_arms": 9, "n_items": 100} | changes


@pytest.fixture
def claims(tmp_path):
    def write(rows, model, name):
        write_result_table(rows_to_table(rows, model), model, tmp_path / f"{name}.csv")
        return tmp_path / f"{name}.csv"

    def made(
        results,
        slopes=(),
        audit=(),
        corrections=(),
        sharpening=(),
        crossed=(),
        accuracies=(("policy", 50.0), ("weak-model", 30.0), ("strong-model", 70.0)),
    ):
        shape = {
            "family": "f",
            "hidden_size": 1,
            "layers": 1,
            "parameters": 1,
            "suite": "id",
            "decoding": "sampled",
            "n_items": 9,
            "n_ungraded": 0,
        }
        capability = [
            {"model": model, **shape, "estimate": value, "ci_low": value, "ci_high": value} for model, value in accuracies
        ]
        settings = ClaimsSettings(
            questions=[{"experiment": "ladder", "question": "Does it help?", "caveat": "Known limits."}],
            suites=["id", "ood"],
            models={"weak": "weak-model", "strong": "strong-model"},
            reference_judge="exact",
            original="",
        )
        tabulate_claims(
            write(list(crossed), TwoDeltas, "two_deltas"),
            write(list(slopes), Regressions, "regressions"),
            write(list(sharpening), Sharpening, "sharpening"),
            write(capability, Capability, "capability"),
            write([], Prediction, "prediction"),
            write(list(audit), JudgeAudit, "judge_audit"),
            write(list(corrections), DeltaCorrection, "delta_correction"),
            {"ladder": write(results, Results, "ladder")},
            None,
            tmp_path / "claims.csv",
            settings=settings,
        )
        return read_result_csv(tmp_path / "claims.csv", Claims).rows(named=True)

    return made


def test_every_comparison_is_a_claim_with_its_test(claims):
    rows = claims([result("strong", None, 60.0), result("strong", "base", 8.0), result("strong", "zero", 1.0, p=0.3)])
    assert [row["claim"] for row in rows] == [
        "strong, against the base policy: rises by +8.0 [+5.0, +11.0]",
        "strong, against zero: not settled, up to 4.0 can't be excluded: +1.0 [-2.0, +4.0]",
    ]
    assert {row["question"] for row in rows} == {"Does it help?"}
    assert rows[1]["p_holm"] == pytest.approx(0.9)
    assert rows[0]["caveat"] == "Known limits."
    assert (rows[0]["ci_low"], rows[0]["adjusted_low"]) == (6, 5)


def test_the_primary_contrast_is_said_first(claims):
    trend = slope("ladder", "trend", "generator_delta", 2.0, 0.001)
    rows = claims([result("strong", "base", 8.0), result("strong", "zero", 3.0, primary=True)], [trend])
    assert [row["primary"] for row in rows[:3]] == [True, False, False]
    assert rows[0]["claim"].startswith("strong, against zero")
    rows = claims([result("strong", "base", 8.0)], [slope("ladder", "trend", "curvature", 2.0, 0.1), trend | {"primary": True}])
    assert rows[0]["claim"].startswith("The gain, for each 10 points of generator-level delta: rises")


def test_an_equivalence_is_a_claim(claims):
    (row,) = claims([result("strong", "zero", 0.2, p=0.5, equivalent_within=2.0, p_equivalent=0.01)])
    assert row["claim"].startswith("strong, against zero: equivalent within +-2")
    assert row["p_equivalent"] == pytest.approx(0.01)


def test_what_each_of_two_crossed_deltas_buys_is_said_first(claims):
    words = {"experiment": "ladder", "policy": "p", "method": "dpo", "judge": "j", "suite": "ood", "minimum_detectable": 1.5}
    words |= {"n_generator_pairs": 4, "n_selections": 4, "n_items": 9, "n_seeds": 2}
    crossed = [
        {**words, "decoding": decoding, "deltas": deltas, "term": term, "p_value": p, "p_holm": 2 * p}
        | {"estimate": size, "ci_low": size - 1, "ci_high": size + 1, "adjusted_low": size - 2, "adjusted_high": size + 2}
        | {"standard_error": 0.5, "freedom": 3.0}
        for decoding in ("sampled", "greedy")
        for deltas, size in (("judged", 3.0), ("corrected", 4.0))
        for term, p in (("generator_delta", 0.01), ("sample_delta", 0.02), ("interaction", 0.5))
    ]
    rows = claims([result("strong", "base", 8.0)], [slope("ladder", "trend", "generator_delta", 2.0, 0.001)], crossed=crossed)
    assert [row["claim"].partition(": ")[0] for row in rows[:2]] == [
        "The gain, for each 10 points of generator-level delta at a fixed sample-level delta (dpo)",
        "The gain, for each level of sample-level delta between fixed generators (dpo)",
    ]
    assert "greedy answers" in rows[3]["claim"] and "rises by +3.0" in rows[3]["claim"]
    assert [row["p_holm"] for row in rows[:3]] == pytest.approx([0.02, 0.04, 1.0])
    assert rows[0]["caveat"] == "Known limits. By deltas without the judge's noise: rises by +4.0 [+2.0, +6.0]."
    assert rows[6]["claim"].startswith("The gain, for each 10 points of generator-level delta: rises by +2.0")
    assert not any("against the base policy" in row["claim"] for row in rows)  # an arm of a crossing has few seeds


def test_unequal_budgets_single_seeds_and_greedy_answers_are_caveats(claims):
    sampled = result("strong", "zero", 8.0, budget="pairs -79 %", n_seeds=1)
    own = result("strong", None, 60.0, decoding="greedy")
    (row,) = claims([sampled, own, result("strong", "zero", -0.5, decoding="greedy")])
    for part in (
        "Known limits.",
        "Budgets differ: pairs -79 %.",
        "One seed",
        "Not so in greedy answers: -0.5 (McNemar p = 0.4)",
        "6 items gained, 4 lost",
    ):
        assert part in row["caveat"]


def test_greedy_answers_at_their_ceiling_speak_neither_for_nor_against_a_rise(claims):
    sampled, own = result("strong", "zero", 8.0), result("strong", None, 99.8, decoding="greedy")
    (row,) = claims([sampled, own, result("strong", "zero", 0.1, decoding="greedy")])
    flips = "Greedy answers: 6 items gained, 4 lost."
    assert row["caveat"] == f"Known limits. {flips} Greedy answers can't show it: 99.7 % are right without it."
    (row,) = claims([result("strong", "zero", -8.0), own, result("strong", "zero", 0.1, decoding="greedy")])
    assert "Not so in greedy answers: +0.1" in row["caveat"]


def test_delta_learning_is_claimed_of_chosen_sides_weaker_than_the_policy_alone(claims):
    rows = claims([result("weak", "base", 5.0), result("strong", "base", 8.0)])
    (row,) = [row for row in rows if row["question"] == DELTA_LEARNING]
    assert row["claim"].startswith("policy with dpo on weak over worst (weak 30, policy 50 on id): rises by +5.0")


def test_trends_and_slopes_are_claims_and_slopes_are_corrected_together(claims):
    slopes = [
        slope("ladder", "trend", "generator_delta", 2.0, 0.001),
        slope("ladder", "trend", "generator_delta", 1.0, 0.2, among="sft"),
        slope("ladder", "trend", "curvature", -0.5, 0.4),
        slope("ladder", "trend", "linearity", 1.0, 0.3),
        slope("dimensions", "dimensions", "factuality", 3.0, 0.03, 0.2),
        slope("dimensions", "dimensions", "step_coherence", 4.0, 0.001, 0.002),
    ]
    rows = claims([result("strong", "base", 8.0)], slopes)
    assert rows[0]["claim"].startswith("The gain, for each 10 points of generator-level delta: rises by +2.0")
    assert rows[1]["claim"].startswith("sft, The gain, for each 10 points of generator-level delta: not settled")
    assert rows[2]["claim"].startswith("The slope of that, for each further 10 points (0 if the gain is linear): not settled")
    assert rows[3]["claim"].startswith("That gains lie on a line: no departure beyond noise was found")
    by_dimension = [row for row in rows if row["question"] == DIMENSIONS]
    assert [row["p_holm"] for row in by_dimension] == pytest.approx([0.2, 0.002])
    assert "not settled" in by_dimension[0]["claim"]


def test_mirrored_slopes_are_said_to_be_no_finding(claims):
    words = ("chosen", "rejected")
    rows = claims([result("strong", "base", 8.0)], [slope("ladder", "quality", term, 3.0, 0.01) for term in words])
    assert all("mirror each other is no finding" in row["caveat"] for row in rows[:2])
    apart = [slope("ladder", "quality", term, 3.0, 0.01) for term in (*words, "chosen + rejected")]
    assert not any("mirror" in row["caveat"] for row in claims([result("strong", "base", 8.0)], apart))


def audited(judge, statistic, estimate, generator=None, dimension="overall", n_ratings=None, half=0.05):
    interval = {"estimate": estimate, "ci_low": estimate - half, "ci_high": estimate + half}
    words = {"judge": judge, "generator": generator, "dimension": dimension, "statistic": statistic, "n_ratings": n_ratings}
    return {**words, **interval, "requests": n_ratings, "n": 100}


def audit_of(judge, correlation, bias):
    return [
        audited(judge, "icc", 0.7, n_ratings=1),
        audited(judge, "icc", 0.6, n_ratings=1, dimension="factuality"),
        *(audited(judge, "spearman_brown", 0.61 + n / 20, n_ratings=n, dimension="factuality") for n in range(1, 8)),
        audited(judge, "spearman", correlation),
        audited(judge, "bias", bias),
        audited(judge, "missing", 0.02, generator="weak", half=0.01),
    ]


def test_what_is_found_of_a_judge_is_a_claim_with_its_interval(claims):
    rows = claims([result("strong", "base", 8.0)], audit=audit_of("j", 0.8, -0.2))
    said = {row["claim"]: row for row in rows if row["question"] == JUDGE}
    assert list(said) == [
        "j: with 1 rating of a trace in 1 request, the reliability of overall is 0.70 [0.65, 0.75], lowest in factuality 0.60 "
        "[0.55, 0.65]",
        "j: 5 ratings are enough for 0.8 in every dimension",
        "j: its rank correlation with exact is 0.80 [0.75, 0.85]",
        "j: its ratings: lower than those of exact by -0.20 [-0.25, -0.15] levels",
        "j: at most 2.0 % of its ratings are missing (of weak, up to 3.0 %)",
    ]
    assert said["j: its rank correlation with exact is 0.80 [0.75, 0.85]"]["ci_high"] == pytest.approx(0.85)


def test_the_poorest_judge_whose_selection_still_helps_is_named(claims):
    results = []
    for judge, p in (("good", 0.001), ("fair", 0.004), ("poor", 0.3)):
        top, control = {"judge": judge, "selection": "top5-overall"}, {"judge": judge, "selection": "random5"}
        results += [
            result(f"{judge}, top5-overall", f"{judge}, random5", 4.0, p=p, **top),
            result(f"{judge}, random5", "base", 1.0, **control),
            result(f"{judge}, top5-overall", "good, top5-overall", 9.0, **top),  # of another judge: says nothing of this one
        ]
    audit = [row for judge, found in (("good", 0.9), ("fair", 0.6), ("poor", 0.2)) for row in audit_of(judge, found, 0.0)]
    (row,) = [row for row in claims(results, audit=audit) if "rank correlation with exact:" in row["claim"]]
    assert row["claim"].endswith("poor (0.20) no, fair (0.60) yes, good (0.90) yes")
    assert (row["estimate"], row["ci_low"]) == (pytest.approx(0.6), pytest.approx(0.55))


def test_what_the_judges_noise_adds_to_a_selected_delta_is_a_claim(claims):
    words = {"judge": "j", "chosen": "strong", "rejected": "weak", "criterion": "overall", "n_pairs": 9, "reliability": 0.5}
    corrections = [
        {**words, "selection": "top5-overall", "judged": 2.0, "corrected": 1.2, "ci_low": 1.0, "ci_high": 1.4}
        | {"reference_judge": 1.0, "reference_judge_scaled": 1.1},
        {**words, "selection": "full", "judged": 0.5, "corrected": 0.5000001, "ci_low": 0.4, "ci_high": 0.6},
        {**words, "selection": "top6-overall", "judged": 2.0},  # rated once
    ]
    (row,) = [row for row in claims([result("strong", "base", 8.0)], corrections=corrections) if row["question"] == SELECTED]
    assert row["claim"] == (
        "top5-overall of strong over weak, judged by j: mean delta in overall +2.00 levels, without noise +1.20, by exact on the "
        "judge's scale +1.10"
    )
    assert row["estimate"] == pytest.approx(1.2)


def test_one_dimension_rather_than_another_is_worded_as_such(claims):
    rows = claims(
        [result("strong", "base", 8.0)], [slope("dimensions", "dimensions", "step_coherence - factuality", -2.0, 0.001)]
    )
    assert "The gain, for each level of mean delta in step_coherence rather than in factuality: falls by -2.0 [-3.5, -0.5]" in [
        row["claim"] for row in rows
    ]


def test_of_each_experiment_the_arm_of_the_largest_delta_is_compared_with_the_policy_at_its_best_temperature(claims):
    results = [result("strong", "base", 8.0, mean_delta=2.0), result("weak", "base", 9.0)]
    shape = {"suite": "ood", "unit": "points", "n_items": 9, "n_seeds": 3}
    words = {name: results[0][name] for name in ("policy", "method", "judge", "chosen", "rejected", "selection")}
    sharpening = [
        {**shape, "arm": name, **words, "chosen": name, "quantity": quantity, "estimate": estimate}
        | {"ci_low": estimate - 1, "ci_high": estimate + 1, "standard_error": 0.49, "freedom": 30.0}
        for name in ("strong", "weak")
        for quantity, estimate in (("over_best", 0.5), ("greedy_over_best", 4.0), ("greedy_gain", 5.0))
    ]
    sharpening.append({**shape, "arm": BEST, "policy": "policy", "quantity": "accuracy", "temperature": 0.0, "estimate": 47.2})
    found = {row["claim"]: row for row in claims(results, sharpening=sharpening) if row["question"] == SHARPENING}
    best = "against the base policy at its best temperature (mostly greedy: 47.2)"
    assert list(found) == [
        f"strong: sampled accuracy, {best}: not settled, up to 1.5 can't be excluded: +0.5 [-0.5, +1.5]",
        f"strong: greedy accuracy, {best}: rises by +4.0 [+3.0, +5.0]",
        "strong: greedy accuracy, against the base policy's: rises by +5.0 [+4.0, +6.0]",
    ]
