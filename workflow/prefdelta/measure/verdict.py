"""A finding in words: the verdict on what its test found, and the names of arms."""

import polars as pl

from prefdelta.measure.intervals import LEVEL


def verdict(
    estimate: float,
    ci_low: float,
    ci_high: float,
    p_value: float | None,
    digits: int = 1,
    words: tuple[str, str] = ("rises by", "falls by"),
) -> str:
    """A direction where ``p_value`` is below 0.05, else the largest difference left possible.

    Where there is an interval but no p-value (bootstrap percentiles), the direction is found where the interval leaves out 0.
    """
    interval = f"{estimate:+.{digits}f} [{ci_low:+.{digits}f}, {ci_high:+.{digits}f}]"
    if p_value < 1 - LEVEL if p_value is not None else not ci_low <= 0 <= ci_high:
        return f"{words[0] if estimate > 0 else words[1]} {interval}"
    return f"no difference larger than {max(-ci_low, ci_high):.{digits}f} could be found: {interval}"


def arm_names(arms: pl.DataFrame) -> list[str]:
    """Short names of ``arms``, which have their words as columns: without the words in which they all agree."""
    varying = [word for word in ("policy", "method", "judge") if arms[word].n_unique() > 1]
    return [
        ", ".join([*(row[word] for word in varying), f"{row['chosen']} over {row['rejected']}", row["selection"]])
        for row in arms.iter_rows(named=True)
    ]
