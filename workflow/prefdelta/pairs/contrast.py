"""What the two sides of pairs differ in, apart from their ratings."""

import polars as pl

from prefdelta.study.lattice import SIDES


def correct_delta(pairs: pl.DataFrame) -> float | None:
    """The share of ``pairs`` (`Pairs`) of which the chosen answer is right minus that of which the rejected one is (points).

    Of those with both answers graded; None where there are none.
    """
    chosen, rejected = (pairs[f"{side}_correct"].cast(pl.Int8) for side in SIDES)
    mean = (chosen - rejected).mean()
    return None if mean is None else 100 * float(mean)  # type: ignore[arg-type]


def n_identical(pairs: pl.DataFrame) -> int:
    """How many of ``pairs`` (`Pairs`) have the same text on both sides: a contrast learns nothing from them."""
    return int((pairs["chosen"] == pairs["rejected"]).sum())
