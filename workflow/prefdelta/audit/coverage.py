"""Coverage of the judge: how many ratings are missing, and why."""

import json
from pathlib import Path

import polars as pl

from prefdelta.study import paths
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.tables.findings import Coverage
from prefdelta.tables.io import read_batches, rows_to_table, write_result_table
from prefdelta.tables.stages import Ratings


def tabulate_coverage(output: Path | str, *, study: str, rated: dict[str, list[str]]) -> None:
    """Writes the `Coverage`: how many ratings were asked and are missing, and why. ``rated``: judge -> generators."""
    rows = []
    for judge, generators in rated.items():
        for generator in generators:
            batches = read_batches(paths.RATINGS.format(study=study, judge=judge, generator=generator), Ratings)
            counts = pl.concat([batch.group_by("dimension", "reason").len("n") for batch in batches])
            counts = counts.group_by("dimension", "reason").agg(pl.col("n").sum())
            for dimension in DIMENSIONS:
                part = counts.filter(dimension=dimension)
                missing = part.drop_nulls("reason").sort("n", "reason", descending=[True, False])
                rows.append(
                    {
                        "judge": judge,
                        "generator": generator,
                        "dimension": dimension,
                        "n_asked": part["n"].sum(),
                        "n_missing": missing["n"].sum(),
                        "reasons": json.dumps(dict(missing.select("reason", "n").iter_rows())),
                    }
                )
    write_result_table(rows_to_table(rows, Coverage), Coverage, output)
