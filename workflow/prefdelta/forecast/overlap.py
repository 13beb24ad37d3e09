"""Overlap: which pairs the arms of the same two generators share."""

from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.study import paths
from prefdelta.tables.findings import Overlap
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs


def tabulate_overlap(output: Path | str, *, groups: list[list[dict[str, str]]]) -> None:
    """Writes `Overlap`, of every two pair sets (words of their paths) in each of ``groups`` (of the same two generators).

    Pairs are the same where their two traces are, whichever of them is the chosen one.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        sets = [(words, _pairs(paths.PAIRS.format(**words))) for words in group]
        for (words, own), (other, others) in combinations(sets, 2):
            shared = own.join(others, on=own.columns, how="semi").height
            rows.append(
                {
                    **{word: words[word] for word in ("chosen", "rejected", "judge", "selection")},
                    "other_judge": other["judge"],
                    "other_selection": other["selection"],
                    "n_pairs": len(own),
                    "n_other": len(others),
                    "n_shared": shared,
                    "share": shared / min(len(own), len(others)),
                }
            )
    write_result_table(rows_to_table(rows, Overlap), Overlap, output)


def _pairs(file: str) -> pl.DataFrame:
    """The two traces of each pair, in the order of their ids."""
    sides = "chosen_trace_id", "rejected_trace_id"
    first, second = pl.min_horizontal(*sides), pl.max_horizontal(*sides)
    return pl.concat([batch.select(first=first, second=second) for batch in read_batches(file, Pairs, ["pair_id", *sides])])
