"""Replication: does each claim of another study hold again in this one, with each of its policies?"""

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.answers.regressions import Regressions
from prefdelta.answers.settings import ReplicationSettings
from prefdelta.findings.experiment import BASE, Results
from prefdelta.measure.intervals import LEVEL
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table

REPLICATION = "Does what another study claims hold again here?"
HOLDS, OPEN, CONTRADICTED = "holds again", "not settled", "contradicted"
NOT_ASKED, NO_CLAIM = "not asked", "no claim"
CAVEAT = (
    "Holds again: found in both (corrected p below 0.05), in one direction. Contradicted: found in the other direction; or not "
    "found, and by the interval of the difference closer to 0 than it was. Anything else is not settled. The interval of the "
    "difference takes the two studies as independent: where they share items or traces, it is too wide. Policies of one study "
    "share pairs and items, so that they do not count as so many independent answers."
)
KEY = ["experiment", "claim", "decoding", "original_policy", "policy"]
NUMBERS = ["estimate", "ci_low", "ci_high", "p_holm"]


class Replication(Table):
    """Every comparison and slope of another study, and the same with a policy of this study. Key: `KEY`.

    Numbers with ``original_`` are those of the other study, in points (slopes: of `Regressions`); those of this one are null
    where nothing there has the claim's words but for the policy. ``difference``: this study's estimate minus the other's, with
    its 95 % interval; ``overlap``: whether the two intervals do. ``verdict``: see `CAVEAT`; `NO_CLAIM` where the other study had
    found nothing.
    """

    experiment: str
    kind: str = pa.Field(isin=["comparison", "slope"])
    claim: str
    decoding: str
    original_policy: str
    original_estimate: float
    original_ci_low: float
    original_ci_high: float
    original_p_holm: float = pa.Field(ge=0, le=1)
    policy: str = pa.Field(nullable=True)
    estimate: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    difference: float = pa.Field(nullable=True)
    difference_low: float = pa.Field(nullable=True)
    difference_high: float = pa.Field(nullable=True)
    overlap: bool = pa.Field(nullable=True)
    verdict: str = pa.Field(isin=[HOLDS, OPEN, CONTRADICTED, NOT_ASKED, NO_CLAIM])

    class Config:
        unique = KEY


def tabulate_replication(
    originals: dict[str, Path],
    experiments: dict[str, Path],
    original_slopes: Path | None,
    slopes: Path | None,
    table: Path,
    *,
    settings: ReplicationSettings,
) -> None:
    """Writes `Replication`: the claims of ``originals`` (`Results` of the other study, by experiment) and ``original_slopes``
    (its `Regressions`) beside those of ``experiments`` and ``slopes``, on the answered suite. Empty without another study.

    Experiments are matched by name, arms and their controls by all words but the policy.
    """
    pairs = [(originals[name], experiments[name], _comparisons) for name in originals]
    if original_slopes and slopes:
        pairs.append((original_slopes, slopes, _slopes))
    rows: list[dict[str, Any]] = []
    for original, again, claims in pairs:
        before = claims(original, settings.suite).rename(
            {"policy": "original_policy", **{name: f"original_{name}" for name in NUMBERS}}
        )
        now = claims(again, settings.suite).drop("kind", "claim")
        found = before.join(now, on=["experiment", "decoding", "key"], how="left", maintain_order="left_right")
        rows += [row | compared(row) for row in found.iter_rows(named=True)]
    write_result_table(rows_to_table(rows, Replication), Replication, table)


def _comparisons(table: Path, suite: str) -> pl.DataFrame:
    """Differences of an experiment between arms of one policy: ``key`` has the words of the arm and of its control."""
    results = read_result_csv(table, Results).filter(pl.col("task").is_null(), suite=suite)
    words = pl.format("{} over {}, {}, {}, {}", "chosen", "rejected", "selection", "method", "judge")
    arms = results.select(versus="arm", control=words, control_policy="policy").unique()
    differences = results.drop_nulls("versus").join(arms, on="versus", how="left", maintain_order="left")
    return differences.filter(pl.col("control_policy").is_null() | (pl.col("control_policy") == pl.col("policy"))).select(
        "experiment",
        "policy",
        "decoding",
        *NUMBERS,
        kind=pl.lit("comparison"),
        claim=pl.format("{}, against {}", "arm", pl.col("versus").replace(BASE, "the base policy")),
        key=pl.format("{} against {}", words, pl.coalesce("control", "versus")),
    )


def _slopes(table: Path, suite: str) -> pl.DataFrame:
    """Slopes of regressions. ``key`` has the words that tell their arms from others, but for the policy."""
    slopes = read_result_csv(table, Regressions).filter(suite=suite)
    among = [
        ", ".join(word for word in (row["among"] or "").split(", ") if word != row["policy"])
        for row in slopes.iter_rows(named=True)
    ]
    return slopes.select(
        "policy",
        *NUMBERS,
        experiment="fit",
        decoding=pl.lit("sampled"),
        kind=pl.lit("slope"),
        claim="term",
        key=pl.format("{} {}", pl.Series(among, dtype=pl.String), "term"),
    )


def compared(row: dict[str, Any]) -> dict[str, Any]:
    """Columns of `Replication` that say how the two estimates of ``row`` compare.

    The interval of their difference is recovered from their own (Zou and Donner 2008, doi 10.1002/sim.3095).
    """
    before, low, high, p_before = (row[f"original_{name}"] for name in NUMBERS)
    now, now_low, now_high, p_now = (row[name] for name in NUMBERS)
    claimed = p_before < 1 - LEVEL
    if now is None:
        return {"verdict": NOT_ASKED if claimed else NO_CLAIM}
    difference = now - before
    columns = {
        "difference": difference,
        "difference_low": difference - ((now - now_low) ** 2 + (high - before) ** 2) ** 0.5,
        "difference_high": difference + ((now_high - now) ** 2 + (before - low) ** 2) ** 0.5,
        "overlap": now_low <= high and low <= now_high,
    }
    same_direction = now * before > 0
    closer_to_0 = columns["difference_high"] < 0 if before > 0 else columns["difference_low"] > 0
    if not claimed:
        return columns | {"verdict": NO_CLAIM}
    if p_now < 1 - LEVEL:
        return columns | {"verdict": HOLDS if same_direction else CONTRADICTED}
    return columns | {"verdict": CONTRADICTED if closer_to_0 else OPEN}


def replication_lines(replication: pl.DataFrame, original: str) -> list[str]:
    """How many claims of the study ``original`` hold again, and a line for each of them: with which policies."""
    claimed = replication.filter(pl.col("verdict") != NO_CLAIM)
    counts = dict(claimed.group_by("verdict").len().iter_rows())
    told = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in (HOLDS, OPEN, CONTRADICTED, NOT_ASKED))
    groups = claimed.partition_by("experiment", "claim", "decoding", "original_policy", maintain_order=True)
    lines = [f"{len(groups)} claims of {original}, each with every policy: {told}"]
    for rows in groups:
        first = rows.row(0, named=True)
        what = f"{first['experiment']}: {first['claim']} ({first['decoding']}), {_interval(first, 'original_')}"
        found = []
        for (verdict,), part in rows.partition_by("verdict", as_dict=True, maintain_order=True).items():
            named = [f"{row['policy']} {_interval(row)}" for row in part.iter_rows(named=True) if row["policy"]]
            found.append(f"{verdict}{' with ' if named else ''}{', '.join(named)}")
        lines.append(f"{what}: {'; '.join(found)}")
    return lines


def _interval(row: dict[str, Any], of: str = "") -> str:
    return f"{row[f'{of}estimate']:+.1f} [{row[f'{of}ci_low']:+.1f}, {row[f'{of}ci_high']:+.1f}]"
