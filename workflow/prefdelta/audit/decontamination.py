"""The table of training prompts that were kept and left out, counted by reason."""

from pathlib import Path

import polars as pl

from prefdelta.tables.findings import Decontamination
from prefdelta.tables.io import read_table, write_result_table
from prefdelta.tables.stages import Dropped, Prompts

KEPT = "kept"


def tabulate_decontamination(prompts: Path | str, dropped: Path | str, output: Path | str) -> None:
    """Writes the `Decontamination` table from the training `Prompts` and the `Dropped` ones."""
    keys = ["task", "outcome", "item_task"]
    kept = read_table(prompts, Prompts).select("task", outcome=pl.lit(KEPT), item_task=pl.lit(None, pl.String))
    left_out = read_table(dropped, Dropped).select("task", outcome="reason", item_task="item_task")
    counts = pl.concat([kept, left_out]).group_by(keys).len("n_prompts").sort(pl.col("outcome") != KEPT, *keys)
    write_result_table(counts.cast({"n_prompts": pl.Int64}), Decontamination, output)
