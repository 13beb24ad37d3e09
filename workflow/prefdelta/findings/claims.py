"""Claims: every finding of a study in one table, worded from its test by one function."""

from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.audit.delta_correction import BY_DELTA
from prefdelta.findings.answers import judge_findings, verdict
from prefdelta.findings.experiment import BASE
from prefdelta.findings.intervals import LEVEL, holm
from prefdelta.study import paths
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.tables.findings import Capability, Claims, DeltaCorrection, JudgeAudit, Prediction, Regressions, Results
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table

SELECTED = "How much of the delta of selected pairs is the judge's noise?"
JUDGE = "Can the judge be trusted?"
NESTED = "t, bootstrap over items in seeds"
LEAST_SQUARES = "t, least squares over arms, bootstrap over items in seeds"
DELTA_LEARNING = "Delta learning: do pairs of a chosen side that is weaker than the policy improve it?"
DIMENSIONS = "In which dimension must the two sides differ?"
PERCENTILES = "bootstrap over prompts"
CEILING = 99.0  # points: what is right so often can hardly rise
NO_TEST = "none"
PREDICTION = "How well can a gain be predicted before training?"


def tabulate_claims(
    regressions: Path | str,
    capability: Path | str,
    prediction: Path | str,
    judge_audit: Path | str,
    delta_correction: Path | str,
    output: Path | str,
    *,
    study: str,
    experiments: list[dict[str, Any]],
    suites: list[str],
    models: dict[str, str],
    reference: str | None,
) -> None:
    """Writes the `Claims` of a study, in the order of its ``experiments`` (``experiment``, ``question``, ``caveat``).

    ``models`` names the model of a generator, where it is one of the study's; ``reference`` is the judge that others are measured
    by.

    Claims are about sampled accuracy on the last of ``suites``. Comparisons are corrected (Holm) within their experiment; a trend
    along a ladder is one test, made first; of a regression its slopes are corrected together.
    """
    slopes = read_result_csv(regressions, Regressions)
    audit = read_result_csv(judge_audit, JudgeAudit)
    rows: list[dict[str, Any]] = []
    weak: dict[str, dict[str, Any]] = {}
    for experiment in experiments:
        name = experiment["experiment"]
        for row in slopes.filter(pl.col("model") == name, pl.col("kind") == "trend").iter_rows(named=True):
            what = "The gain, for each 10 points of generator-level delta"
            rows.append(_claim(experiment, what, row, NESTED, row["p_value"]))
        for row in _terms(slopes, name, "quality"):
            words = {"chosen": "10 points of chosen accuracy", "rejected": "10 points of rejected accuracy"}
            words["chosen + rejected"] = "10 points of both (0 if the delta alone counts)"
            rows.append(_claim(experiment, f"The gain, for each {words[row['term']]}", row, LEAST_SQUARES, row["p_holm"]))
        found = read_result_csv(paths.TABLE.format(study=study, experiment=name), Results)
        found = found.filter(pl.col("suite") == suites[-1], pl.col("task").is_null())
        greedy = {(row["arm"], row["versus"]): row for row in found.filter(decoding="greedy").iter_rows(named=True)}
        found = found.filter(pl.col("versus").is_not_null(), decoding="sampled")
        for row in found.iter_rows(named=True):
            versus = "the base policy" if row["versus"] == BASE else row["versus"]
            what = f"{row['arm']}, against {versus}"
            caveats = [experiment["caveat"], *_caveats(row, *(greedy.get((row["arm"], name)) for name in (row["versus"], None)))]
            rows.append(_claim({**experiment, "caveat": " ".join(caveats)}, what, row, NESTED, row["p_holm"]))
            if row["versus"] == BASE and row["generator_delta"] > 0 and row["selection"] == "full":
                weak[f"{row['policy']} with {row['method']} on {row['chosen']} over {row['rejected']}"] = row
        rows += _least_agreement(experiment, found, audit, reference)
    rows += _weak_claims(weak, capability, models, suites)
    caveat = "Arms are few, saturate at large deltas, and differ in more than their deltas; see the inflation factors (vif)."
    for row in _terms(slopes, "dimensions", "dimensions"):
        what = f"The gain, for each level of mean delta in {row['term'].replace(' - ', ' rather than in ')}"
        rows.append(_claim({"question": DIMENSIONS, "caveat": caveat}, what, row, LEAST_SQUARES, row["p_holm"]))
    for row in read_result_csv(prediction, Prediction).iter_rows(named=True):
        claim = f"{row['split']}: R^2 {_number(row['r2'])}, rank correlation {_number(row['spearman'])}, {row['n_arms']} arms"
        caveat = "R^2 of predicted gains; the arms are those of this study and share generators and the policy."
        rows.append({"question": PREDICTION, "claim": claim, "estimate": row["r2"], "test": NO_TEST, "caveat": caveat})
    caveat = "Reliability is how far a judge repeats itself, not whether it is right; errors of the reference do not show."
    for judge, said, row in judge_findings(audit, reference):
        interval = {name: row.get(name) for name in ("estimate", "ci_low", "ci_high")}
        test = NO_TEST if interval["ci_low"] is None else PERCENTILES
        rows.append({"question": JUDGE, "claim": f"{judge}: {said}", **interval, "test": test, "caveat": caveat})
    rows += _correction_claims(delta_correction, reference)
    write_result_table(rows_to_table(rows, Claims), Claims, output)


def _least_agreement(
    experiment: dict[str, Any], found: pl.DataFrame, audit: pl.DataFrame, reference: str | None
) -> list[dict[str, Any]]:
    """With how poor a judge a selection still does better than its control of the same judge, by rank correlation.

    Nothing where all of an experiment's arms have one judge, or none has been compared with the ``reference``.
    """
    agreement = audit.filter(pl.col("generator").is_null(), pl.col("estimate").is_not_null())
    agreement = agreement.filter(statistic="spearman", dimension="overall")
    known = {row["judge"]: row for row in agreement.iter_rows(named=True)}
    judge_of = dict(found.select("arm", "judge").iter_rows())
    helped: dict[str, bool] = {}
    for row in found.filter(pl.col("versus") != BASE).iter_rows(named=True):
        if judge_of.get(row["versus"]) == row["judge"] in known:
            helped[row["judge"]] = helped.get(row["judge"], False) or (row["estimate"] > 0 and row["p_holm"] < 1 - LEVEL)
    if len(set(judge_of.values())) == 1 or not helped:
        return []
    ordered = sorted(helped, key=lambda judge: float(known[judge]["estimate"]))
    said = ", ".join(f"{judge} ({known[judge]['estimate']:.2f}) {'yes' if helped[judge] else 'no'}" for judge in ordered)
    worst = next((known[judge] for judge in ordered if helped[judge]), None)
    claim = f"Does selecting do better than its control by judges of this rank correlation with {reference}: {said}"
    interval = {name: worst[name] if worst else None for name in ("estimate", "ci_low", "ci_high")}
    caveat = f"{experiment['caveat']} The estimate is the least rank correlation of a yes; a no is not shown to be nothing."
    return [{"question": experiment["question"], "claim": claim, **interval, "test": PERCENTILES, "caveat": caveat}]


def _correction_claims(delta_correction: Path | str, reference: str | None) -> list[dict[str, Any]]:
    """Judged and corrected mean deltas (levels) of the pairs that were selected by them."""
    caveat = "Errors that all ratings of a trace share are not taken back; `delta_correction.correct` says where it is off."
    rows = []
    for row in read_result_csv(delta_correction, DeltaCorrection).iter_rows(named=True):
        if parse(draw_for_seed(row["selection"], 0)).kind not in BY_DELTA or row["corrected"] is None:
            continue  # not selected by the delta, or rated once: nothing is taken back, or known
        claim = (
            f"{row['selection']} of {row['chosen']} over {row['rejected']}, judged by {row['judge']}: mean delta in "
            f"{row['criterion']} {row['judged']:+.2f} levels, without noise {row['corrected']:+.2f}"
        )
        if row["reference_scaled"] is not None:
            claim += f", by {reference} on the judge's scale {row['reference_scaled']:+.2f}"
        kept = {"estimate": row["corrected"], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}
        rows.append({"question": SELECTED, "claim": claim, **kept, "test": PERCENTILES, "caveat": caveat})
    return rows


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _claim(experiment: dict[str, Any], what: str, row: dict[str, Any], test: str, p_holm: float) -> dict[str, Any]:
    words = verdict(row["estimate"], row["ci_low"], row["ci_high"], p_holm)
    kept = {name: row[name] for name in ("estimate", "ci_low", "ci_high", "p_value", "minimum_detectable")}
    question = {"question": experiment["question"], "claim": f"{what}: {words}", "caveat": experiment["caveat"]}
    return {**question, **kept, "test": test, "p_holm": p_holm}


def _caveats(row: dict[str, Any], greedy: dict[str, Any] | None, accuracy: dict[str, Any] | None) -> list[str]:
    """What speaks against a comparison, from the tables alone: ``greedy`` is the same one, and ``accuracy`` the arm's own, of
    greedy answers."""
    found = [f"Budgets differ: {row['budget']}."] if row["budget"] else []
    if row["n_seeds"] == 1:
        found.append("One seed: the interval speaks of items alone.")
    if greedy and accuracy and row["p_holm"] < 1 - LEVEL:
        before = accuracy["estimate"] - greedy["estimate"]
        if row["estimate"] > 0 and before >= CEILING:
            found.append(f"Greedy answers can't show it: {before:.1f} % are right without it.")
        elif greedy["estimate"] * row["estimate"] <= 0 or greedy["p_mcnemar"] >= 1 - LEVEL:
            found.append(f"Not so in greedy answers: {greedy['estimate']:+.1f} (McNemar p = {greedy['p_mcnemar']:.2g}).")
    return found


def _terms(slopes: pl.DataFrame, model: str, kind: str) -> list[dict[str, Any]]:
    rows = slopes.filter(pl.col("model") == model, pl.col("kind") == kind).rows(named=True)
    return [{**row, "p_holm": p} for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True)]


def _weak_claims(
    arms: dict[str, dict[str, Any]], capability: Path | str, models: dict[str, str], suites: list[str]
) -> list[dict[str, Any]]:
    """Gains over the base policy where the chosen side's model is less accurate than the policy, on the first of ``suites``."""
    measured = read_result_csv(capability, Capability).filter(
        pl.col("suite") == suites[0], pl.col("task").is_null(), pl.col("decoding") == "sampled"
    )
    accuracy = dict(measured.select("model", "estimate").iter_rows())
    weaker = {}
    for name, row in arms.items():
        own, policy = accuracy.get(models.get(row["chosen"], "")), accuracy[row["policy"]]
        if own is not None and own < policy:
            weaker[f"{name} ({row['chosen']} {own:.0f}, {row['policy']} {policy:.0f} on {suites[0]})"] = row
    caveat = "Weaker on average: on single problems the chosen side can still be better than the policy."
    corrected = holm([row["p_value"] for row in weaker.values()])
    experiment = {"question": DELTA_LEARNING, "caveat": caveat}
    return [_claim(experiment, name, row, NESTED, p) for (name, row), p in zip(weaker.items(), corrected, strict=True)]
