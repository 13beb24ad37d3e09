"""Coverage of the judge: how many ratings are missing, and why."""

import json
from pathlib import Path

import pandera.polars as pa
import polars as pl

from prefdelta.tables.check import Table
from prefdelta.tables.io import read_batches, read_dimensions, rows_to_table, write_result_table
from prefdelta.tables.stages import Ratings


class Coverage(Table):
    """Ratings asked and missing, by judge, generator, dimension; ``reasons`` counts the causes."""

    judge: str
    generator: str
    dimension: str
    n_asked: int = pa.Field(gt=0)
    n_missing: int = pa.Field(ge=0)
    reasons: str


def tabulate_coverage(ratings: dict[tuple[str, str], Path], table: Path) -> None:
    """Writes the `Coverage`: how many ratings were asked and are missing, and why. ``ratings`` are by judge and generator."""
    rows = []
    for (judge, generator), file in ratings.items():
        counts = pl.concat([batch.group_by("dimension", "reason").len("n") for batch in read_batches(file, Ratings)])
        counts = counts.group_by("dimension", "reason").agg(pl.col("n").sum())
        for dimension in read_dimensions(file).names:
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
    write_result_table(rows_to_table(rows, Coverage), Coverage, table)
