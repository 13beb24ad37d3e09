"""Writing and reading of tables, whose models are enforced both times: parquet between stages, CSV for results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from prefdelta.run.atomic import replacing, write_text
from prefdelta.study.dimensions import THE_FIVE, Dimensions
from prefdelta.tables.cells import formulas_as_texts, latex_cell, markdown_cell, texts_as_given
from prefdelta.tables.check import Keys, Table, check_rows, check_table, check_types
from prefdelta.tables.checksum import NONE_YET, DamagedTableError, check_parquet, read_summed, seal_parquet, write_sums

ARM = ["policy", "method", "judge", "chosen", "rejected", "selection"]  # the words of an arm
BATCH = 2**20  # rows of a narrow table that are in memory at once
ROW_GROUP = 2**15  # rows: a reader that wants some of them should not have to hold many others
ROW_GROUP_BYTES = 2**26  # fewer rows where texts are long
_DIMENSIONS = "prefdelta.dimensions"  # in the metadata of a parquet file by a judge with other dimensions than the paper's


def rows_to_table(rows: list[dict[str, Any]], model: type[Table]) -> pl.DataFrame:
    """Rows as a frame with the columns and types of ``model``; what a row does not name is null."""
    columns = model.to_schema().columns
    types: Any = {name: column.dtype.type for name, column in columns.items()}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=types)


def sink_batches(batches: Iterable[pl.DataFrame], path: Path | str, dimensions: Dimensions = THE_FIVE) -> None:
    """Writes one parquet file of all ``batches`` (at least one; same columns), of which a few are in memory at a time."""
    ahead = iter(batches)
    first = next(ahead)

    def read(*_: Any) -> Iterator[pl.DataFrame]:
        return chain([first], ahead)

    rows = max(1, min(ROW_GROUP, ROW_GROUP_BYTES * len(first) // int(first.estimated_size() + 1)))
    metadata = NONE_YET if dimensions == THE_FIVE else {_DIMENSIONS: dimensions.model_dump_json(), **NONE_YET}
    # Level 1 takes half the time of the default and is no larger here.
    register_io_source(read, schema=first.schema).sink_parquet(path, compression_level=1, row_group_size=rows, metadata=metadata)


def read_dimensions(path: Path | str) -> Dimensions:
    """What was rated in a table of ratings or pairs: whoever reads one follows it, not a setting of its own.

    So an edit of a rubric's words concerns only the judge, and what its ratings change. Raises DamagedTableError.
    """
    check_parquet(Path(path))
    return _dimensions(path)


def judge_dimensions(ratings: Mapping[tuple[str, str], Path], judge: str) -> Dimensions:
    """What ``judge`` rates, by the first of its tables among ``ratings``, by (judge, generator). Raises DamagedTableError."""
    return read_dimensions(next(file for (name, _), file in ratings.items() if name == judge))


def _dimensions(path: Path | str) -> Dimensions:
    """`read_dimensions` of a table that has been looked at."""
    try:
        written = pl.read_parquet_metadata(path).get(_DIMENSIONS)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedTableError(f"{path} can't be read as parquet ({error}). Delete it and run again.", Path(path)) from None
    return Dimensions.model_validate_json(written) if written else THE_FIVE


def write_batches(
    batches: Iterable[pl.DataFrame], model: type[Table], path: Path | str, dimensions: Dimensions = THE_FIVE
) -> None:
    """Checks ``batches`` (at least one) against ``model`` and writes them as one parquet file, atomically.

    A table by a judge has its ``dimensions``, which its readers follow (`read_dimensions`). Raises TableError, and leaves no
    file, where a batch breaks the model or a key is in two batches.
    """
    model = model.by(dimensions)
    columns, keys = tuple(model.to_schema().columns), Keys(model)

    def checked() -> Iterator[pl.DataFrame]:
        for batch in batches:
            check_rows(batch, model, path, columns)
            keys.add(batch)
            yield batch

    with replacing(path) as temporary:
        sink_batches(checked(), temporary, dimensions)
        keys.check(pl.scan_parquet(temporary), path)
        seal_parquet(temporary)


def write_table(frame: pl.DataFrame, model: type[Table], path: Path | str, dimensions: Dimensions = THE_FIVE) -> None:
    """Checks ``frame`` against ``model`` and writes it as parquet, atomically. Raises TableError and leaves no file."""
    write_batches([frame], model, path, dimensions)


def read_batches(path: Path | str, model: type[Table], columns: Sequence[str] = ()) -> Iterator[pl.DataFrame]:
    """Reads and checks a parquet table (of it ``columns``, all by default) in batches of about `BATCH` rows.

    ``columns`` must have those of the key. Raises TableError like `read_table`, for a repeated key after the last batch.
    """
    check_parquet(Path(path))
    model = model.by(_dimensions(path))
    everything = tuple(model.to_schema().columns)
    names, keys = tuple(columns) or everything, Keys(model)
    try:
        table = pl.scan_parquet(path)
        check_types(table.collect_schema(), model, path, everything)
        table = table.select(names)
        for batch in table.collect_batches(chunk_size=BATCH, engine="streaming"):
            check_rows(batch, model, path, names)
            keys.add(batch)
            yield batch
        keys.check(table, path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedTableError(f"{path} can't be read as parquet ({error}). Delete it and run again.", path) from None


def read_table(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a parquet table.

    Raises TableError with the file, the column and the check, or DamagedTableError where it is not what was written.
    """
    check_parquet(Path(path))
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedTableError(f"{path} can't be read as parquet ({error}). Delete it and run again.", path) from None
    return check_table(frame, model.by(_dimensions(path)), path)


def read_result_csv(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a CSV result table, whose texts come back as they were given to `write_result_table`.

    Raises TableError, or DamagedTableError where it is not what was written.
    """
    content = read_summed(Path(path))
    types: Any = {name: column.dtype.type for name, column in model.to_schema().columns.items()}
    try:
        frame = pl.read_csv(content, schema_overrides=types)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        message = f"{path} can't be read as a {model.__name__} table: {reason}. Delete it and run again."
        raise DamagedTableError(message, path) from None
    return check_table(texts_as_given(frame), model, path)


def write_result_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Writes a checked result table as CSV, and beside it as Markdown (.md), LaTeX booktabs (.tex) and checksums (.sha256).

    Texts stay texts: see `cells`. In the CSV file those that a spreadsheet would compute have an apostrophe before them.
    """
    checked = check_table(frame, model, path)
    columns = [name for name in checked.columns if checked[name].null_count() < len(checked)]
    cells = [
        ["" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in checked.select(columns).iter_rows()
    ]
    lines = [columns, ["---"] * len(columns), *([markdown_cell(cell) for cell in row] for row in cells)]
    markdown = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    escaped = [[latex_cell(cell) for cell in line] for line in [columns, *cells]]
    head, *body = [" & ".join(line) + r" \\" for line in escaped]
    open_tabular, close_tabular = rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\end{tabular}"
    tex = "\n".join([open_tabular, r"\toprule", head, r"\midrule", *body, r"\bottomrule", close_tabular, ""])
    texts = {Path(path).with_suffix(".md"): markdown, Path(path).with_suffix(".tex"): tex}
    texts[Path(path)] = formulas_as_texts(checked).write_csv()  # the last, since readers look for it
    write_sums({file.name: text.encode() for file, text in texts.items()}, Path(path).with_suffix(".sha256"))
    for file, text in texts.items():
        write_text(text, file)
