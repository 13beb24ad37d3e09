"""Claims: every finding of a study in one table, worded from its test by one function."""

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.answers.regressions import DEPARTURES, MIRRORED, Regressions
from prefdelta.answers.replication import CAVEAT, REPLICATION, Replication, replication_lines
from prefdelta.answers.settings import ClaimsSettings, Question
from prefdelta.answers.two_deltas import TwoDeltas, two_deltas_claims
from prefdelta.audit.delta_correction import BY_DELTA, DeltaCorrection
from prefdelta.audit.judge_audit import JudgeAudit, judge_findings
from prefdelta.findings.capability import Capability
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.sharpening import Sharpening, beyond_temperature
from prefdelta.forecast.prediction import Prediction, prediction_lines
from prefdelta.measure.intervals import LEVEL, Interval
from prefdelta.measure.verdict import decided, departure_verdict, verdict
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table

SELECTED = "How much of the delta of selected pairs is the judge's noise?"
JUDGE = "Can the judge be trusted?"
NESTED = "t, bootstrap over items in seeds"
OVER_ARMS = "t, least squares over arms, generators and items"
OVER_GENERATORS = "t, jackknife over generators, and items"
F_TEST = "F, arms against the noise of items and seeds"
CLUSTERED = "t, least squares within and between pairs of generators, bootstrap over items in seeds"
DELTA_LEARNING = "Delta learning: do pairs of a chosen side that is weaker than the policy improve it?"
DIMENSIONS = "In which dimension must the two sides differ?"
PERCENTILES = "bootstrap over prompts"
CEILING = 99.0  # points: what is right so often can hardly rise
NO_TEST = "none"
SHARPENING = "Does training do more than a lower temperature of the untuned policy would?"
PREDICTION = "How well can a gain be predicted before training?"


class Claims(Table):
    """Every finding of a study in words, with what it rests on (points, or the unit that the claim names).

    ``primary``: the one contrast that its experiment declares. ``p_holm`` is corrected for the other claims of the same family
    (`decided`), and the adjusted interval, which the words show, fits it; ``ci_low`` and ``ci_high`` are of the claim by itself.
    ``minimum_detectable``: the smallest true size that such a test, so corrected, finds in 80 % of cases. A claim without a test
    (``test`` is none) has an estimate only.
    """

    question: str
    claim: str
    primary: bool
    estimate: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    adjusted_low: float = pa.Field(nullable=True)
    adjusted_high: float = pa.Field(nullable=True)
    test: str
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    p_equivalent: float = pa.Field(nullable=True, ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    caveat: str


def tabulate_claims(
    two_deltas: Path,
    regressions: Path,
    sharpening: Path,
    capability: Path,
    prediction: Path,
    judge_audit: Path,
    delta_correction: Path,
    experiments: dict[str, Path],
    replication: Path | None,
    table: Path,
    *,
    settings: ClaimsSettings,
) -> None:
    """Writes the `Claims` of a study: those of crossed experiments first, then of others, in the order of its questions, of each
    its primary contrast; before the last what is no sharpening.

    Claims are about sampled accuracy on the last of the suites. What is corrected together is in the tables that they are from.
    """
    slopes, audit = read_result_csv(regressions, Regressions), read_result_csv(judge_audit, JudgeAudit)
    rows: list[dict[str, Any]] = []
    weak: dict[str, dict[str, Any]] = {}
    strongest = []
    crossed = read_result_csv(two_deltas, TwoDeltas)
    for question in settings.questions:
        rows += _crossed_claims(question, crossed.filter(experiment=question.experiment))
    for question in settings.questions:
        results = read_result_csv(experiments[question.experiment], Results)
        results = results.filter(pl.col("suite") == settings.suites[-1], pl.col("task").is_null())
        compared = results.filter(pl.col("versus").is_not_null(), decoding="sampled")
        for row in compared.filter(pl.col("generator_delta") > 0, versus=BASE, selection="full").iter_rows(named=True):
            weak[f"{row['policy']} with {row['method']} on {row['chosen']} over {row['rejected']}"] = row
        found = _slope_claims(question, slopes)
        if question.experiment not in crossed["experiment"]:  # whose many arms have few seeds each: its slopes are what it is for
            strongest += results.sort("mean_delta").tail(1).rows(named=True)
            found += _comparison_claims(question, compared, results.filter(decoding="greedy"))
        rows += sorted(found, key=lambda row: not row["primary"])
        rows += _least_agreement(question, compared, audit, settings.reference_judge)
    caveat = "Of each experiment the arm whose pairs have the largest mean overall delta, which is known before training."
    beyond = beyond_temperature(read_result_csv(sharpening, Sharpening), strongest, settings.suites[-1])
    second = next((place for place, row in enumerate(rows) if row["question"] != rows[0]["question"]), len(rows))
    rows[second:second] = [_claim(SHARPENING, caveat, what, row, NESTED) for what, row in beyond]
    rows += _weak_claims(weak, read_result_csv(capability, Capability), settings)
    rows += _dimension_claims(slopes)
    rows += _prediction_claims(read_result_csv(prediction, Prediction))
    rows += _judge_claims(audit, settings.reference_judge)
    rows += _correction_claims(read_result_csv(delta_correction, DeltaCorrection), settings.reference_judge)
    if replication:
        lines = replication_lines(read_result_csv(replication, Replication), settings.original)
        rows += [{"question": REPLICATION, "claim": line, "test": NO_TEST, "caveat": CAVEAT} for line in lines]
    write_result_table(rows_to_table([{"primary": False} | row for row in rows], Claims), Claims, table)


def _claim(question: str, caveat: str, what: str, row: dict[str, Any], test: str) -> dict[str, Any]:
    """The claim that a ``row`` makes which has been `decided`."""
    row = {"primary": False} | row
    words = departure_verdict(row) if test == F_TEST else verdict(row)
    kept = {name: row.get(name) for name in Claims.to_schema().columns}
    return {**kept, "question": question, "claim": f"{what}: {words}", "caveat": caveat, "test": test}


def _crossed_claims(asked: Question, slopes: pl.DataFrame) -> list[dict[str, Any]]:
    """What each of the two deltas buys, given the other: of sampled answers, then of greedy ones."""
    return [
        _claim(asked.question, f"{asked.caveat} {caveat}".strip(), what, row, CLUSTERED)
        for decoding in ("sampled", "greedy")
        for what, row, caveat in two_deltas_claims(slopes.filter(decoding=decoding))
    ]


def _slope_claims(asked: Question, slopes: pl.DataFrame) -> list[dict[str, Any]]:
    """What an experiment's gain depends on: the trend of a ladder, the slopes of a grid."""
    words = {
        "generator_delta": "The gain, for each 10 points of generator-level delta",
        "curvature": "The slope of that, for each further 10 points (0 if the gain is linear)",
        "linearity": "That gains lie on a line",
        "chosen": "The gain, for each 10 points of chosen accuracy",
        "rejected": "The gain, for each 10 points of rejected accuracy",
        "chosen + rejected": "The gain, for each 10 points of both (0 if the delta alone counts)",
        "additivity": "That the gain of i over j is what i is worth as chosen and j as rejected, added up",
    }
    rows = []
    for row in slopes.filter(fit=asked.experiment).iter_rows(named=True):
        what = ", ".join(filter(None, (row["among"], words[row["term"]])))
        mirrored = row["kind"] == "quality" and "chosen + rejected" not in slopes.filter(fit=asked.experiment)["term"]
        caveat = f"{asked.caveat} {MIRRORED}" if mirrored and row["term"] in ("chosen", "rejected") else asked.caveat
        rows.append(_claim(asked.question, caveat, what, row, F_TEST if row["term"] in DEPARTURES else OVER_ARMS))
    return rows


def _comparison_claims(asked: Question, compared: pl.DataFrame, greedy: pl.DataFrame) -> list[dict[str, Any]]:
    """Each arm against the base policy and its controls; ``greedy`` are the `Results` of greedy answers."""
    by_place = {(row["arm"], row["versus"]): row for row in greedy.iter_rows(named=True)}
    rows = []
    for row in compared.iter_rows(named=True):
        what = f"{row['arm']}, against {'the base policy' if row['versus'] == BASE else row['versus']}"
        caveats = _caveats(row, *(by_place.get((row["arm"], versus)) for versus in (row["versus"], None)))
        rows.append(_claim(asked.question, " ".join([asked.caveat, *caveats]), what, row, NESTED))
    return rows


def _caveats(row: dict[str, Any], greedy: dict[str, Any] | None, accuracy: dict[str, Any] | None) -> list[str]:
    """What speaks against a comparison, from the tables alone: ``greedy`` is the same one, and ``accuracy`` the arm's own, of
    greedy answers."""
    found = [f"Budgets differ: {row['budget']}."] if row["budget"] else []
    if row["n_seeds"] == 1:
        found.append("One seed: the interval speaks of items alone.")
    if greedy:
        found.append(f"Greedy answers: {greedy['n_gained']:.0f} items gained, {greedy['n_lost']:.0f} lost.")
    if greedy and accuracy and row["p_holm"] < 1 - LEVEL:
        before = accuracy["estimate"] - greedy["estimate"]
        if row["estimate"] > 0 and before >= CEILING:
            found.append(f"Greedy answers can't show it: {before:.1f} % are right without it.")
        elif greedy["estimate"] * row["estimate"] <= 0 or greedy["p_mcnemar"] >= 1 - LEVEL:
            found.append(f"Not so in greedy answers: {greedy['estimate']:+.1f} (McNemar p = {greedy['p_mcnemar']:.2g}).")
    return found


def _least_agreement(
    asked: Question, compared: pl.DataFrame, audit: pl.DataFrame, reference_judge: str | None
) -> list[dict[str, Any]]:
    """With how poor a judge a selection still does better than its control of the same judge, by rank correlation.

    Nothing where all of an experiment's arms have one judge, or none has been compared with the ``reference_judge``.
    """
    agreement = audit.filter(pl.col("generator").is_null(), pl.col("estimate").is_not_null())
    agreement = agreement.filter(statistic="spearman", dimension="overall")
    known = {row["judge"]: row for row in agreement.iter_rows(named=True)}
    judge_of = dict(compared.select("arm", "judge").iter_rows())
    helped: dict[str, bool] = {}
    for row in compared.filter(pl.col("versus") != BASE).iter_rows(named=True):
        if judge_of.get(row["versus"]) == row["judge"] in known:
            helped[row["judge"]] = helped.get(row["judge"], False) or (row["estimate"] > 0 and row["p_holm"] < 1 - LEVEL)
    if len(set(judge_of.values())) == 1 or not helped:
        return []
    ordered = sorted(helped, key=lambda judge: float(known[judge]["estimate"]))
    said = ", ".join(f"{judge} ({known[judge]['estimate']:.2f}) {'yes' if helped[judge] else 'no'}" for judge in ordered)
    worst = next((known[judge] for judge in ordered if helped[judge]), None)
    claim = f"Does selecting do better than its control by judges of this rank correlation with {reference_judge}: {said}"
    interval = {name: worst[name] if worst else None for name in ("estimate", "ci_low", "ci_high")}
    caveat = f"{asked.caveat} The estimate is the least rank correlation of a yes; a no is not shown to be nothing."
    return [{"question": asked.question, "claim": claim, **interval, "test": PERCENTILES, "caveat": caveat}]


def _weak_claims(arms: dict[str, dict[str, Any]], capability: pl.DataFrame, settings: ClaimsSettings) -> list[dict[str, Any]]:
    """Gains over the base policy where the chosen side's model is less accurate than the policy, on the first of the suites."""
    suite = settings.suites[0]
    measured = capability.filter(pl.col("task").is_null(), suite=suite, decoding="sampled")
    accuracy = dict(measured.select("model", "estimate").iter_rows())
    weaker = {}
    for name, row in arms.items():
        own, policy = accuracy.get(settings.models.get(row["chosen"], "")), accuracy[row["policy"]]
        if own is not None and own < policy:
            weaker[f"{name} ({row['chosen']} {own:.0f}, {row['policy']} {policy:.0f} on {suite})"] = row
    caveat = "Weaker on average: on single problems the chosen side can still be better than the policy."
    tested = zip(weaker.items(), decided([Interval.of(row) for row in weaker.values()], limit=100), strict=True)
    return [_claim(DELTA_LEARNING, caveat, name, row | found | {"primary": False}, NESTED) for (name, row), found in tested]


def _dimension_claims(slopes: pl.DataFrame) -> list[dict[str, Any]]:
    caveat = (
        "Arms are few, saturate at large deltas, and differ in more than their deltas; see the inflation factors (vif). They "
        "share generators, so the interval is one over generators, which is too wide rather than too narrow."
    )
    rows = []
    for row in slopes.filter(kind="dimensions").iter_rows(named=True):
        what = f"The gain, for each level of mean delta in {row['term'].replace(' - ', ' rather than in ')}"
        rows.append(_claim(DIMENSIONS, caveat, what, row, OVER_GENERATORS))
    return rows


def _prediction_claims(splits: pl.DataFrame) -> list[dict[str, Any]]:
    caveat = "The estimate is R^2. The arms are those of this study and share generators and policies; only frozen predictions "
    caveat += "are by a fit on another one."
    said = zip(prediction_lines(splits), splits["r2"], strict=True)
    return [{"question": PREDICTION, "claim": line, "estimate": r2, "test": NO_TEST, "caveat": caveat} for line, r2 in said]


def _judge_claims(audit: pl.DataFrame, reference_judge: str | None) -> list[dict[str, Any]]:
    caveat = "Reliability is how far a judge repeats itself, not whether it is right; errors of the reference do not show."
    rows = []
    for judge, said, row in judge_findings(audit, reference_judge):
        interval = {name: row.get(name) for name in ("estimate", "ci_low", "ci_high")}
        test = NO_TEST if interval["ci_low"] is None else PERCENTILES
        rows.append({"question": JUDGE, "claim": f"{judge}: {said}", **interval, "test": test, "caveat": caveat})
    return rows


def _correction_claims(corrections: pl.DataFrame, reference_judge: str | None) -> list[dict[str, Any]]:
    """Judged and corrected mean deltas (levels) of the pairs that were selected by them."""
    caveat = "Errors that all ratings of a trace share are not taken back; `delta_correction.correct` says where it is off."
    rows = []
    for row in corrections.iter_rows(named=True):
        if parse(draw_for_seed(row["selection"], 0)).kind not in BY_DELTA or row["corrected"] is None:
            continue  # not selected by the delta, or rated once: nothing is taken back, or known
        claim = (
            f"{row['selection']} of {row['chosen']} over {row['rejected']}, judged by {row['judge']}: mean delta in "
            f"{row['criterion']} {row['judged']:+.2f} levels, without noise {row['corrected']:+.2f}"
        )
        if row["reference_judge_scaled"] is not None:
            claim += f", by {reference_judge} on the judge's scale {row['reference_judge_scaled']:+.2f}"
        kept = {"estimate": row["corrected"], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}
        rows.append({"question": SELECTED, "claim": claim, **kept, "test": PERCENTILES, "caveat": caveat})
    return rows
