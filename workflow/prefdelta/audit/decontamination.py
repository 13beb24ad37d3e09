"""The table of training prompts that were kept and left out, counted by reason."""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from prefdelta.tables.check import Table
from prefdelta.tables.io import read_table, write_result_table
from prefdelta.tables.stages import Dropped, Prompts

KEPT = "kept"


class Decontamination(Table):
    """Training prompts by what became of them: ``kept``, or the reason why they were left out."""

    task: str
    outcome: str
    item_task: str = pa.Field(nullable=True)
    n_prompts: int = pa.Field(ge=0)


def tabulate_decontamination(prompts: Path, dropped: Path, table: Path) -> None:
    """Writes the `Decontamination` table from the training `Prompts` and the `Dropped` ones."""
    keys = ["task", "outcome", "item_task"]
    kept = read_table(prompts, Prompts).select("task", outcome=pl.lit(KEPT), item_task=pl.lit(None, pl.String))
    left_out = read_table(dropped, Dropped).select("task", outcome="reason", item_task="item_task")
    counts = pl.concat([kept, left_out]).group_by(keys).len("n_prompts").sort(pl.col("outcome") != KEPT, *keys)
    write_result_table(counts.cast({"n_prompts": pl.Int64}), Decontamination, table)
