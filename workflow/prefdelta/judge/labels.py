"""Labels: ratings that a file holds already, such as those of people, in place of a judge's answers."""

import csv
import io
import re
from pathlib import Path

import polars as pl

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import Dimensions

KEY = ["trace_id", "dimension", "repeat"]
NEEDED = ["trace_id", "dimension", "rating"]
_NUMBER = re.compile(r"(-?\d{1,9})(?:[.,](\d{1,9}))?")  # spreadsheets make 4.0 of 4, or 4,0


class LabelsError(PrefdeltaError):
    """A file of labels can't be used; the message names the file and what is wrong with it."""


def read_labels(file: Path | str, trace_ids: pl.Series, judge: str, rated: Dimensions) -> pl.DataFrame:
    """The `Ratings` that the CSV ``file`` (trace_id, dimension, rating; optional: repeat, from 0) has of ``trace_ids``.

    It may be as spreadsheets write it: separated by commas, semicolons or tabs, with ``4.0`` for 4, ``Step coherence`` for
    step_coherence, spaces around what a cell holds, and empty lines. A trace without any rating was not rated and has no rows; a
    dimension that a rated trace lacks, or has without a rating, is missing. Raises LabelsError for a file that lacks a column,
    names a dimension that is not ``rated``, has a rating that is not on its scale or a key twice, or rates none of the traces.
    """
    labels = _cells(Path(file))

    def refuse(wrong: pl.Expr, what: str) -> None:
        rows = labels.filter(wrong)
        if len(rows):
            raise LabelsError(f"{file}, line {rows['line'][0]}: {what} ({len(rows)} such lines)")

    written = {name: pl.col(name).map_elements(_number, pl.Float64, skip_nulls=False) for name in ("rating", "repeat")}
    empty = pl.col("written") == ""
    labels = labels.with_columns(
        **written, written=pl.col("rating"), dimension=pl.col("dimension").map_elements(_name, pl.String)
    )
    refuse(pl.col("trace_id") == "", "the trace_id is empty")
    refuse(~pl.col("dimension").is_in(rated.names), f"the dimension must be one of {', '.join(rated.names)}")
    on_scale = pl.col("rating").map_elements(rated.holds, pl.Boolean).fill_null(False)
    refuse(~(empty | on_scale), f"the rating must be a {rated.told}")
    repeat = pl.col("repeat")
    refuse(repeat.is_null() | (repeat < 0) | (repeat != repeat.floor()), "the repeat must be a number from 0")
    labels = labels.with_columns(repeat.cast(pl.Int64), pl.col("rating").cast(pl.Int64 if rated.whole else pl.Float64))
    refuse(pl.struct(KEY).is_duplicated(), "the same trace, dimension and repeat stand in several lines")
    labels = labels.filter(pl.col("trace_id").is_in(trace_ids.implode()) & ~empty)
    if labels.is_empty():
        raise LabelsError(f"{file} rates none of these {len(trace_ids)} traces, such as {trace_ids[0]}: leave that generator out")
    whole = labels.select("trace_id", "repeat").unique().join(pl.DataFrame({"dimension": rated.names}), how="cross")
    ratings = whole.join(labels, on=KEY, how="left")
    return ratings.select(
        "trace_id",
        judge=pl.lit(judge),
        dimension="dimension",
        repeat="repeat",
        rating="rating",
        reason=pl.when(pl.col("rating").is_null()).then(pl.lit("not labelled")),
    )


def _cells(file: Path) -> pl.DataFrame:
    """line (in ``file``), trace_id, dimension, rating and repeat, as texts without the spaces around them."""
    try:
        # The mark that spreadsheets put before UTF-8 is no part of the first column's name.
        text = file.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise LabelsError(f"{file} can't be read as labels: {error}") from None
    if not rows:
        raise LabelsError(f"{file} can't be read as labels: it is empty")
    (_, header), *lines = rows
    names = [_name(name) for name in header]
    if lacking := [name for name in NEEDED if name not in names]:
        raise LabelsError(f"{file} lacks {', '.join(lacking)}; needed are {', '.join(NEEDED)}; repeat is optional")
    if twice := {name for name in (*NEEDED, "repeat") if names.count(name) > 1}:
        raise LabelsError(f"{file} has the column {', '.join(sorted(twice))} more than once")
    cells = []
    for line, row in lines:
        if len(row) != len(names) and any(row):
            raise LabelsError(f"{file}, line {line}: {len(row)} cells under {len(names)} column names")
        if any(row):
            cells.append({"line": line, "repeat": "0", **dict(zip(names, row, strict=True))})
    return pl.DataFrame(
        cells, schema=dict.fromkeys(["trace_id", "dimension", "rating", "repeat"], pl.String) | {"line": pl.Int64}
    )


def _name(written: str) -> str:
    return re.sub(r"[\s_-]+", "_", written.strip().lower())


def _number(written: str) -> float | None:
    found = _NUMBER.fullmatch(written)
    return float(f"{found[1]}.{found[2] or 0}") if found else None
