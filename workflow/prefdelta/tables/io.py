"""Every table that passes between stages: a pandera model each, one writer and one reader that enforce it."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors
from polars.io.plugins import register_io_source

from prefdelta.run.atomic import replacing, write_text
from prefdelta.run.errors import PrefdeltaError

ARM = ["policy", "method", "judge", "chosen", "rejected", "selection"]  # the words of an arm


class TableError(PrefdeltaError):
    """A table is unreadable or breaks its model: the message names the file, the column and the check."""


class Table(pa.DataFrameModel):
    class Config:
        strict = True
        ordered = False


BATCH = 2**20  # rows of a narrow table that are in memory at once
ROW_GROUP = 2**15  # rows: a reader that wants some of them should not have to hold many others
ROW_GROUP_BYTES = 2**26  # fewer rows where texts are long
_LATEX = str.maketrans({character: f"\\{character}" for character in "_%&#${}"})


@cache
def _row_checks(model: type[Table], columns: tuple[str, ...]) -> Any:
    """The schema of ``columns`` of ``model`` without the check of unique keys: what batches can be checked against one by one."""
    schema = deepcopy(model.to_schema())
    if len(columns) < len(schema.columns):
        schema = schema.select_columns(list(columns))
    schema.unique = None
    for column in schema.columns.values():
        column.unique = False
    return schema


def _check_types(found: pl.Schema, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    expected = {name: str(model.to_schema().columns[name].dtype) for name in columns}
    types = {name: str(dtype) for name, dtype in found.items()}
    wrong = [
        f"column '{name}': expected {expected.get(name, 'no such column')}, found {types.get(name, 'none')}"
        for name in expected | types
        if expected.get(name) != types.get(name)
    ]
    if wrong:
        raise TableError(f"{path} is not a {model.__name__} table: " + "; ".join(wrong))


def _check_rows(batch: pl.DataFrame, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    _check_types(batch.schema, model, path, columns)
    try:
        _row_checks(model, columns).validate(batch, lazy=True)
    except SchemaErrors as errors:
        causes = errors.failure_cases.select("column", "check").unique(maintain_order=True)
        wrong = [f"column '{column}' fails check {check}" for column, check in causes.head(5).iter_rows()]
        raise TableError(f"{path} breaks the {model.__name__} model: " + "; ".join(wrong)) from None


class _Keys:
    """Whether the keys of a table are unique, whose batches come one after the other.

    Where rows with the same first column lie together and increase in the others, it is enough to look at neighbours, and at a
    64-bit hash of each first column. In any other order, and where two hashes are equal, all keys are counted.
    """

    def __init__(self, model: type[Table]) -> None:
        schema = model.to_schema()
        self.model = model
        self.names = schema.unique or [name for name, column in schema.columns.items() if column.unique]
        self.hashes = [pl.Series([], dtype=pl.UInt64)]
        self.last: list[pl.DataFrame] = []
        self.increase = True

    def add(self, batch: pl.DataFrame) -> None:
        if not self.names or batch.is_empty():
            return
        keys = pl.concat([*self.last, batch.select(self.names)])
        first, *others = self.names
        new = keys[first].ne_missing(keys[first].shift())
        if self.last:
            new[0] = False  # it was counted with its own batch
        self.hashes.append(keys[first].filter(new).hash())
        tied = ~new
        tied[0] = False
        for name in others:
            before = keys[name].shift()
            self.increase &= not (tied & (keys[name] < before)).any()
            tied &= keys[name] == before
            if not tied.any():  # the rest can't change that
                break
        self.increase &= not tied.any()
        self.last = [keys.tail(1)]

    def check(self, table: pl.LazyFrame, path: Path | str) -> None:
        """Raises TableError where a key of the whole ``table`` is there twice."""
        hashes = pl.concat(self.hashes)
        if self.increase and hashes.n_unique() == len(hashes):
            return
        repeated = table.group_by(self.names).len("n").filter(pl.col("n") > 1).head(1).collect(engine="streaming")
        if len(repeated):
            what = f"column '{self.names[0]}' fails" if len(self.names) == 1 else f"columns {', '.join(self.names)} fail"
            example = ", ".join(map(str, repeated.select(self.names).row(0)))
            raise TableError(f"{path} breaks the {self.model.__name__} model: {what} check unique, such as {example}")


def _check(frame: pl.DataFrame, model: type[Table], path: Path | str) -> pl.DataFrame:
    _check_rows(frame, model, path, tuple(model.to_schema().columns))
    keys = _Keys(model)
    keys.add(frame)
    keys.check(frame.lazy(), path)
    return frame


def rows_to_table(rows: list[dict[str, Any]], model: type[Table]) -> pl.DataFrame:
    """Rows as a frame with the columns and types of ``model``; what a row does not name is null."""
    columns = model.to_schema().columns
    types: Any = {name: column.dtype.type for name, column in columns.items()}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=types)


def sink_batches(batches: Iterable[pl.DataFrame], path: Path | str) -> None:
    """Writes one parquet file of all ``batches`` (at least one; same columns), of which a few are in memory at a time."""
    ahead = iter(batches)
    first = next(ahead)

    def read(*_: Any) -> Iterator[pl.DataFrame]:
        return chain([first], ahead)

    rows = max(1, min(ROW_GROUP, ROW_GROUP_BYTES * len(first) // int(first.estimated_size() + 1)))
    # Level 1 takes half the time of the default and is no larger here.
    register_io_source(read, schema=first.schema).sink_parquet(path, compression_level=1, row_group_size=rows)


def write_batches(batches: Iterable[pl.DataFrame], model: type[Table], path: Path | str) -> None:
    """Checks ``batches`` (at least one) against ``model`` and writes them as one parquet file, atomically.

    Raises TableError, and leaves no file, where a batch breaks the model or a key is in two batches.
    """
    columns, keys = tuple(model.to_schema().columns), _Keys(model)

    def checked() -> Iterator[pl.DataFrame]:
        for batch in batches:
            _check_rows(batch, model, path, columns)
            keys.add(batch)
            yield batch

    with replacing(path) as temporary:
        sink_batches(checked(), temporary)
        keys.check(pl.scan_parquet(temporary), path)


def write_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Checks ``frame`` against ``model`` and writes it as parquet, atomically. Raises TableError and leaves no file."""
    write_batches([frame], model, path)


def read_batches(path: Path | str, model: type[Table], columns: Sequence[str] = ()) -> Iterator[pl.DataFrame]:
    """Reads and checks a parquet table (of it ``columns``, all by default) in batches of about `BATCH` rows.

    ``columns`` must have those of the key. Raises TableError like `read_table`, for a repeated key after the last batch.
    """
    everything = tuple(model.to_schema().columns)
    names, keys = tuple(columns) or everything, _Keys(model)
    try:
        table = pl.scan_parquet(path)
        _check_types(table.collect_schema(), model, path, everything)
        table = table.select(names)
        for batch in table.collect_batches(chunk_size=BATCH, engine="streaming"):
            _check_rows(batch, model, path, names)
            keys.add(batch)
            yield batch
        keys.check(table, path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path} can't be read as parquet ({error}). Delete it and run again.") from None


def read_table(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a parquet table. Raises TableError with the file, the column and the check."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path} can't be read as parquet ({error}). Delete it and run again.") from None
    return _check(frame, model, path)


def read_result_csv(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a CSV result table."""
    types: Any = {name: column.dtype.type for name, column in model.to_schema().columns.items()}
    try:
        frame = pl.read_csv(path, schema_overrides=types)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TableError(f"{path} can't be read as a {model.__name__} table: {reason}. Delete it and run again.") from None
    return _check(frame, model, path)


def write_result_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Writes a checked result table as CSV, and beside it as Markdown (.md) and LaTeX booktabs (.tex)."""
    checked = _check(frame, model, path)
    columns = [name for name in checked.columns if checked[name].null_count() < len(checked)]
    cells = [
        ["" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in checked.select(columns).iter_rows()
    ]
    lines = [columns, ["---"] * len(columns), *cells]
    markdown = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    escaped = [[cell.translate(_LATEX) for cell in line] for line in [columns, *cells]]
    head, *body = [" & ".join(line) + r" \\" for line in escaped]
    open_tabular, close_tabular = rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\end{tabular}"
    tex = "\n".join([open_tabular, r"\toprule", head, r"\midrule", *body, r"\bottomrule", close_tabular, ""])
    write_text(markdown, Path(path).with_suffix(".md"))
    write_text(tex, Path(path).with_suffix(".tex"))
    with replacing(path) as temporary:
        checked.write_csv(temporary)
