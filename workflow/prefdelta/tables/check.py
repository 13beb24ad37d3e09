"""What a table must be: its pandera model, checked batch by batch, and unique keys over all batches."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import Dimensions


class TableError(PrefdeltaError):
    """A table is unreadable or breaks its model: the message names the file, the column and the check."""


class Table(pa.DataFrameModel):
    class Config:
        strict = True
        ordered = False

    @classmethod
    def by(cls, dimensions: Dimensions) -> "type[Table]":
        """The model of a table by a judge with these ``dimensions``. Most tables are the same for all."""
        return cls


def with_columns(model: type[Table], columns: dict[str, tuple[type, Any]]) -> type[Table]:
    """``model`` with further ``columns``: name -> type and field."""
    annotations = {name: kind for name, (kind, _) in columns.items()}
    fields = {name: field for name, (_, field) in columns.items()}
    body = {"__annotations__": annotations, "__module__": model.__module__, "__doc__": model.__doc__, **fields}
    return type(model.__name__, (model,), body)


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


def check_types(found: pl.Schema, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    """Raises TableError where ``columns`` of ``model`` are not those of the schema ``found`` of the table at ``path``."""
    expected = {name: str(model.to_schema().columns[name].dtype) for name in columns}
    types = {name: str(dtype) for name, dtype in found.items()}
    wrong = [
        f"column '{name}': expected {expected.get(name, 'no such column')}, found {types.get(name, 'none')}"
        for name in expected | types
        if expected.get(name) != types.get(name)
    ]
    if wrong:
        raise TableError(f"{path} is not a {model.__name__} table: " + "; ".join(wrong))


def check_rows(batch: pl.DataFrame, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    """Raises TableError where rows of ``batch`` break ``model``, but for unique keys (`Keys`)."""
    check_types(batch.schema, model, path, columns)
    try:
        _row_checks(model, columns).validate(batch, lazy=True)
    except SchemaErrors as errors:
        causes = errors.failure_cases.select("column", "check").unique(maintain_order=True)
        wrong = [f"column '{column}' fails check {check}" for column, check in causes.head(5).iter_rows()]
        raise TableError(f"{path} breaks the {model.__name__} model: " + "; ".join(wrong)) from None


class Keys:
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


def check_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> pl.DataFrame:
    """``frame``, a whole table. Raises TableError."""
    check_rows(frame, model, path, tuple(model.to_schema().columns))
    keys = Keys(model)
    keys.add(frame)
    keys.check(frame.lazy(), path)
    return frame
