"""Answers in words: what a result table says about an experiment's question, worded from its intervals by one function."""

from typing import Any

import polars as pl

from prefdelta.results import BASE


def verdict(estimate: float, ci_low: float, ci_high: float) -> str:
    """A difference in words: its direction is claimed only where the 95 % interval leaves out zero."""
    interval = f"{estimate:+.1f} [{ci_low:+.1f}, {ci_high:+.1f}]"
    if ci_low > 0:
        return f"higher by {interval}"
    if ci_high < 0:
        return f"lower by {interval}"
    return f"no difference shown: {interval}"


def answer_experiment(table: pl.DataFrame, content: dict[str, Any], suite: str) -> list[str]:
    """One sentence for each arm: the sampled accuracy on ``suite`` against the base policy and against each control."""
    shown = table.filter((pl.col("suite") == suite) & (pl.col("decoding") == "sampled"))
    lines = []
    for arm in content["arms"]:
        rows = {row["versus"]: row for row in shown.filter(arm=arm["arm"]).iter_rows(named=True)}
        accuracy = rows.pop(None)
        compared = [
            f"{'base policy' if versus == BASE else versus}: {verdict(row['estimate'], row['ci_low'], row['ci_high'])}"
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
