"""Overlap: which pairs the arms of the same two generators share."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.forecast.settings import OverlapSettings
from prefdelta.study.lattice import PairSet
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs


class Overlap(Table):
    """Pairs that two pair sets of the same generators share. ``share``: of the smaller one, 0 to 1.

    Of selections and generators with several draws: the first one.
    """

    chosen: str
    rejected: str
    judge: str
    selection: str
    other_judge: str
    other_selection: str
    n_pairs: int = pa.Field(gt=0)
    n_other: int = pa.Field(gt=0)
    n_shared: int = pa.Field(ge=0)
    share: float = pa.Field(ge=0, le=1)

    class Config:
        unique = ["chosen", "rejected", "judge", "selection", "other_judge", "other_selection"]


def tabulate_overlap(pairs: dict[PairSet, Path], table: Path, *, settings: OverlapSettings) -> None:
    """Writes `Overlap`, of every two pair sets in each group of ``settings``.

    Pairs are the same where their two traces are, whichever of them is the chosen one.
    """
    rows: list[dict[str, Any]] = []
    for group in settings.groups:
        sets = [(named, _traces(pairs[named])) for named in group]
        for (named, own), (other, others) in combinations(sets, 2):
            shared = own.join(others, on=own.columns, how="semi").height
            rows.append(
                {
                    **vars(named),
                    "other_judge": other.judge,
                    "other_selection": other.selection,
                    "n_pairs": len(own),
                    "n_other": len(others),
                    "n_shared": shared,
                    "share": shared / min(len(own), len(others)),
                }
            )
    write_result_table(rows_to_table(rows, Overlap), Overlap, table)


def _traces(pairs: Path) -> pl.DataFrame:
    """The two traces of each pair, in the order of their ids."""
    sides = "chosen_trace_id", "rejected_trace_id"
    first, second = pl.min_horizontal(*sides), pl.max_horizontal(*sides)
    return pl.concat([batch.select(first=first, second=second) for batch in read_batches(pairs, Pairs, ["pair_id", *sides])])
