"""The verdict on a finding: what the tests of a family found, corrected for their number, and how that is said."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from prefdelta.measure.intervals import LEVEL, Interval, holm


def decided(tests: Sequence[Interval], smallest_effect: float | None = None, limit: float = math.inf) -> list[dict[str, Any]]:
    """What each of a family of ``tests`` decides, as columns: ``p_value``, ``p_holm``, ``p_equivalent``, ``equivalent_within``,
    ``adjusted_low``, ``adjusted_high``, ``minimum_detectable``.

    A direction is found where ``p_holm`` is below 0.05 (Holm 1979). Where there is a ``smallest_effect``, the truth is found to
    be within it where ``p_equivalent``, of two one-sided tests and corrected likewise, is; then it is ``equivalent_within``, else
    that is null. The adjusted bounds, cut at ``limit``, fit the decision: they are those of the simultaneous 95 % interval
    (Bonferroni's; its 90 % one where only an equivalence is found, which is how two one-sided tests at 5 % are read), and where
    Holm's test finds more than this shows, they end where the test does. ``minimum_detectable`` is at Bonferroni's level, so that
    it is never too small.
    """
    error = (1 - LEVEL) / max(len(tests), 1)
    directions = holm([test.p_value for test in tests])
    equal = holm([test.p_equivalent(smallest_effect) for test in tests]) if smallest_effect else [None] * len(tests)
    rows = []
    for test, p_holm, p_equivalent in zip(tests, directions, equal, strict=True):
        directed = p_holm < 1 - LEVEL
        within = smallest_effect if p_equivalent is not None and p_equivalent < 1 - LEVEL else None
        low, high = test.at(1 - (error if directed or not within else 2 * error))
        if directed:
            low, high = (max(low, 0.0), high) if test.estimate > 0 else (low, min(high, 0.0))
        if within:
            low, high = max(low, -within), min(high, within)
        rows.append(
            {
                "p_value": test.p_value,
                "p_holm": p_holm,
                "p_equivalent": p_equivalent,
                "equivalent_within": within,
                "adjusted_low": max(low, -limit),
                "adjusted_high": min(high, limit),
                "minimum_detectable": test.minimum_detectable(error),
            }
        )
    return rows


def verdict(
    row: Mapping[str, Any],
    digits: int = 1,
    words: tuple[str, str] = ("rises by", "falls by"),
) -> str:
    """What the columns of a row (`decided`, and ``estimate``) say: a direction; that the truth is within the smallest effect of
    interest; or that neither is settled, and the largest size that is left possible. The interval is the adjusted one.
    """
    estimate, low, high = (row[name] for name in ("estimate", "adjusted_low", "adjusted_high"))
    within = row.get("equivalent_within")  # tables without a smallest effect have no such column
    interval = f"{estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    bounds = f"within +-{within:g}" if within else ""
    if row["p_holm"] < 1 - LEVEL:
        return f"{words[0] if estimate > 0 else words[1]} {interval}" + (f", {bounds}" if within else "")
    if within:
        return f"equivalent {bounds}: {interval} (90 %)"
    return f"not settled, up to {max(-low, high):.{digits}f} can't be excluded: {interval}"


def departure_verdict(row: Mapping[str, Any]) -> str:
    """What a `slopes.Departure` says, whose ``p_holm`` is that of its test: of a size, it has no direction."""
    interval = f"{row['estimate']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
    if row["p_holm"] < 1 - LEVEL:
        return f"arms depart from it by a standard deviation of {interval} points beyond noise"
    return f"no departure beyond noise was found, a standard deviation of up to {row['ci_high']:.1f} points can't be excluded"


def percentile_verdict(estimate: float, ci_low: float, ci_high: float, digits: int, words: tuple[str, str]) -> str:
    """The `verdict` where there is an interval but no test (bootstrap percentiles): a direction where it leaves out 0."""
    p_value = 1.0 if ci_low <= 0 <= ci_high else 0.0
    row = {"estimate": estimate, "adjusted_low": ci_low, "adjusted_high": ci_high, "p_holm": p_value}
    return verdict(row, digits, words)


def arm_names(arms: pl.DataFrame) -> list[str]:
    """Short names of ``arms``, which have their words as columns: without the words in which they all agree."""
    varying = [word for word in ("policy", "method", "judge") if arms[word].n_unique() > 1]
    return [
        ", ".join([*(row[word] for word in varying), f"{row['chosen']} over {row['rejected']}", row["selection"]])
        for row in arms.iter_rows(named=True)
    ]
