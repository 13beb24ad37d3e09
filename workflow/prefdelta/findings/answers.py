"""Answers in words: what a result table says about an experiment's question, worded from its tests by one function."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from prefdelta.findings.experiment import BASE
from prefdelta.findings.intervals import LEVEL

MANY_PASSES = 4  # more repetition adds little (of pretraining: Muennighoff et al. 2023, arXiv 2305.16264)
SHOWN = 5  # names in a sentence
RELIABLE = 0.8  # what is usually asked of a measure before differences are studied by it (Nunnally and Bernstein 1994)


def verdict(
    estimate: float,
    ci_low: float,
    ci_high: float,
    p_value: float | None,
    digits: int = 1,
    words: tuple[str, str] = ("rises by", "falls by"),
) -> str:
    """What a test found, in words: a direction where ``p_value`` is below 0.05, else the largest difference left possible.

    Where there is an interval but no p-value (bootstrap percentiles), the direction is found where the interval leaves out 0.
    """
    interval = f"{estimate:+.{digits}f} [{ci_low:+.{digits}f}, {ci_high:+.{digits}f}]"
    if p_value < 1 - LEVEL if p_value is not None else not ci_low <= 0 <= ci_high:
        return f"{words[0] if estimate > 0 else words[1]} {interval}"
    return f"no difference larger than {max(-ci_low, ci_high):.{digits}f} could be found: {interval}"


def answer_experiment(table: pl.DataFrame, content: dict[str, Any], suite: str) -> list[str]:
    """One sentence for each arm: the sampled accuracy on ``suite`` against the base policy and against each control."""
    shown = table.filter((pl.col("suite") == suite) & (pl.col("decoding") == "sampled"))
    lines = []
    for arm in content["arms"]:
        rows = {row["versus"]: row for row in shown.filter(arm=arm["arm"]).iter_rows(named=True)}
        accuracy = rows.pop(None)
        compared = [
            f"{'base policy' if versus == BASE else versus}: "
            + verdict(row["estimate"], row["ci_low"], row["ci_high"], row["p_holm"])
            + (f" ({row['budget']})" if row["budget"] else "")
            for versus, row in rows.items()
        ]
        seeds = f"{accuracy['n_seeds']} seed{'s' if accuracy['n_seeds'] > 1 else ' only, so the interval speaks of items alone'}"
        lines.append(f"**{arm['arm']}** {accuracy['estimate']:.1f} ({seeds}). Against " + "; ".join(compared) + ".")
    return lines


def answer_profile(table: pl.DataFrame, content: dict[str, Any]) -> list[str]:
    """One sentence for each generator pair: its mean delta in every criterion."""
    lines = []
    for arm in content["arms"]:
        rows = table.filter(arm=arm["arm"]).iter_rows(named=True)
        means = ", ".join(
            f"{row['dimension']} {row['estimate']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]" for row in rows
        )
        lines.append(f"**{arm['arm']}**: {means}.")
    return lines


def judge_findings(table: pl.DataFrame, reference: str | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(judge, what was found of it, the row that says so) from a `tables.JudgeAudit`: can it be trusted?"""
    for judge in table["judge"].unique(maintain_order=True):
        rows = table.filter(judge=judge)
        everywhere = rows.filter(pl.col("generator").is_null() & pl.col("estimate").is_not_null())
        used, requests = max(rows.filter(statistic="icc").select("n_ratings", "requests").iter_rows())
        asked = f"{used} rating{'s'[: used - 1]} of a trace" + (
            f" in {requests} request{'s'[: requests - 1]}" if requests else ""
        )
        repeated = everywhere.filter(statistic="icc", n_ratings=used).sort("estimate")
        for row in repeated.filter(dimension="overall").iter_rows(named=True):
            worst = repeated.row(0, named=True)
            lowest = f"lowest in {worst['dimension']} {_with_interval(worst)}"
            yield judge, f"with {asked}, the reliability of overall is {_with_interval(row)}, {lowest}", row
            curve = everywhere.filter(pl.col("statistic") == "spearman_brown", pl.col("dimension") != "overall")
            worst_of = curve.group_by("n_ratings").agg(pl.col("ci_low").min()).sort("n_ratings")
            enough = worst_of.filter(pl.col("ci_low") >= RELIABLE)["n_ratings"].to_list()
            needed = f"{enough[0]} ratings are enough" if enough else f"more than {worst_of['n_ratings'][-1]} ratings are needed"
            yield judge, f"{needed} for {RELIABLE} in every dimension", {"estimate": enough[0] if enough else None}
        if repeated.is_empty():
            yield judge, f"with {asked}, whether it would rate the same trace alike again is unknown", {}
        for row in everywhere.filter(statistic="spearman", dimension="overall").iter_rows(named=True):
            yield judge, f"its rank correlation with {reference} is {_with_interval(row)}", row
        compared = {
            "bias": ("its ratings", f"those of {reference}"),
            "length_bias": ("its ratings, at equal quality, of traces with a standard deviation more tokens", "others"),
            "family_bias": ("its ratings, at equal quality, of traces of its own family", "others"),
        }
        for statistic, (what, others) in compared.items():
            for row in everywhere.filter(statistic=statistic, dimension="overall").iter_rows(named=True):
                words = (f"higher than {others} by", f"lower than {others} by")
                found = verdict(row["estimate"], row["ci_low"], row["ci_high"], None, 2, words)
                yield judge, f"{what}: {found} levels", row
        missing = rows.filter(statistic="missing", dimension="overall").drop_nulls("generator").sort("estimate")
        worst = missing.row(-1, named=True)
        most, bound = 100 * worst["estimate"], 100 * worst["ci_high"]
        yield judge, f"at most {most:.1f} % of its ratings are missing (of {worst['generator']}, up to {bound:.1f} %)", worst


def answer_judge_audit(table: pl.DataFrame, reference: str | None) -> list[str]:
    """A line for each judge: what was found of it. ``table`` is a `tables.JudgeAudit`."""
    found: dict[str, list[str]] = {}
    for judge, words, _ in judge_findings(table, reference):
        found.setdefault(judge, []).append(words)
    return [f"**{judge}**: {'; '.join(words)}." for judge, words in found.items()]


def answer_balance(table: pl.DataFrame) -> list[str]:
    """A sentence for each comparison: in which covariates but deltas are its arms imbalanced? ``table`` is a `tables.Balance`."""
    lines = []
    comparisons = table.partition_by("experiment", "arm", "versus", as_dict=True, maintain_order=True)
    for (experiment, arm, versus), rows in comparisons.items():
        differing = rows.filter(pl.col("imbalanced"), ~pl.col("covariate").str.starts_with("delta_"))
        said = [
            f"{row['covariate']} ({'nothing varies' if row['smd'] is None else format(row['smd'], '+.2f')})"
            for row in differing.iter_rows(named=True)
        ]
        lines.append(f"{experiment}: **{arm}** against {versus}: {', '.join(said) or 'balanced'}.")
    return lines


def answer_whatif(arms: pl.DataFrame, identical_pairs: float, truncated: float) -> list[str]:
    """What to look at before training ``arms`` (`tables.WhatIf`); the shares are the gates at which training does not start."""
    both = pl.max_horizontal("chosen_truncated", "rejected_truncated")
    arms = arms.with_columns(arm=pl.Series(arm_names(arms), dtype=pl.String), truncated=both)
    smallest = arms.sort("n_pairs").row(0, named=True)
    lines = [
        f"Size: at least {smallest['n_pairs']:.0f} pairs (**{smallest['arm']}**). "
        + _these(arms.filter(pl.col("n_passes") > MANY_PASSES), f"Pairs are read more than {MANY_PASSES} times")
    ]
    gates = {
        "truncated": ("Truncation by max_length", "traces of a side", truncated),
        "identical": ("Equal texts on both sides", "pairs", identical_pairs),
    }
    for column, (title, unit, gate) in gates.items():
        if worst := arms.drop_nulls(column).sort(column, descending=True).head(1).to_dicts():
            above = _these(arms.filter(pl.col(column) > gate), f"Above the gate of {gate:.0%}, so training would not start")
            lines.append(f"{title}: at most {worst[0][column]:.1%} of {unit} (**{worst[0]['arm']}**). {above}")
        else:
            lines.append(f"{title}: unknown.")
    lines.append(_these(arms.filter(pl.col("delta_overall") <= 0), "Mean overall delta of 0 or less"))
    if predicted := arms.drop_nulls("predicted_gain").sort("predicted_gain").to_dicts():
        ends = [f"{row['predicted_gain']:+.1f} (**{row['arm']}**)" for row in (predicted[0], predicted[-1])]
        lines.append(f"Predicted gain: from {ends[0]} to {ends[1]}.")
    seeds, tokens = pl.col("n_seeds"), arms.select((pl.col("n_training_tokens") * pl.col("n_seeds")).sum()).item()
    total = f"Budget: {arms.select(seeds.sum()).item()} trainings of {len(arms)} arms read {tokens:.3g} completion tokens"
    if arms["cost"].null_count():
        lines.append(f"{total}; how long that takes and what it costs is unknown without `cost` in the configuration.")
    else:
        training, evaluation, cost = (arms[column].sum() for column in ("training_hours", "evaluation_hours", "cost"))
        lines.append(f"{total}: {training:.3g} hours, and {evaluation:.3g} hours of evaluations; cost {cost:,.2f}.")
    return lines


def arm_names(arms: pl.DataFrame) -> list[str]:
    """Short names of ``arms`` (`tables.WhatIf`): without the words in which they all agree."""
    varying = [word for word in ("policy", "method", "judge") if arms[word].n_unique() > 1]
    return [
        ", ".join([*(row[word] for word in varying), f"{row['chosen']} over {row['rejected']}", row["selection"]])
        for row in arms.iter_rows(named=True)
    ]


def _these(arms: pl.DataFrame, what: str) -> str:
    names = arms["arm"].to_list()
    rest = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return f"{what}: {'; '.join([*names[:SHOWN], *rest]) or 'none'}."


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
