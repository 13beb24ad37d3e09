"""Labels: ratings that a file holds already, such as those of people, in place of a judge's answers."""

from pathlib import Path

import polars as pl

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS, LEVELS

KEY = ["trace_id", "dimension", "repeat"]
NEEDED = ["trace_id", "dimension", "rating"]


class LabelsError(PrefdeltaError):
    """A file of labels can't be used; the message names the file and what is wrong with it."""


def read_labels(file: Path | str, trace_ids: pl.Series, judge: str) -> pl.DataFrame:
    """The `Ratings` that the CSV ``file`` (trace_id, dimension, rating; optional: repeat, from 0) has of ``trace_ids``.

    A trace without any label was not rated and has no rows; a dimension that a labelled trace lacks is missing. Raises
    LabelsError for a file that lacks a column, names an unknown dimension, has another level than 1 to 5 or a key twice, or rates
    none of the traces.
    """
    try:
        given = pl.read_csv(file, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabelsError(f"{file} can't be read as labels: {error}") from None
    if lacking := set(NEEDED) - set(given.columns):
        raise LabelsError(f"{file} lacks {', '.join(sorted(lacking))}; needed are {', '.join(NEEDED)}; repeat is optional")
    if "repeat" not in given.columns:
        given = given.with_columns(repeat=pl.lit("0"))
    labels = given.select(*KEY, "rating").with_columns(pl.col("rating", "repeat").cast(pl.Int64, strict=False))

    def refuse(wrong: pl.Expr, what: str) -> None:
        rows = labels.with_row_index("line", offset=2).filter(wrong)
        if len(rows):
            raise LabelsError(f"{file}, line {rows['line'][0]}: {what} ({len(rows)} such lines)")

    refuse(pl.col("trace_id").is_null(), "the trace_id is empty")
    refuse(~pl.col("dimension").is_in(DIMENSIONS).fill_null(False), f"the dimension must be one of {', '.join(DIMENSIONS)}")
    refuse(~pl.col("rating").is_in(list(LEVELS)).fill_null(False), f"the rating must be from {LEVELS[0]} to {LEVELS[-1]}")
    refuse((pl.col("repeat") < 0).fill_null(True), "the repeat must be a number from 0")
    refuse(pl.struct(KEY).is_duplicated(), "the same trace, dimension and repeat stand in several lines")
    labels = labels.filter(pl.col("trace_id").is_in(trace_ids.implode()))
    if labels.is_empty():
        raise LabelsError(f"{file} rates none of these {len(trace_ids)} traces, such as {trace_ids[0]}: leave that generator out")
    whole = labels.select("trace_id", "repeat").unique().join(pl.DataFrame({"dimension": DIMENSIONS}), how="cross")
    ratings = whole.join(labels, on=KEY, how="left")
    return ratings.select(
        "trace_id",
        judge=pl.lit(judge),
        dimension="dimension",
        repeat="repeat",
        rating="rating",
        reason=pl.when(pl.col("rating").is_null()).then(pl.lit("not labelled")),
    )
