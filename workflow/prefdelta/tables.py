"""Every table that passes between stages: a pandera model each, one writer and one reader that enforce it."""

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from prefdelta.atomic import replacing, write_text
from prefdelta.errors import PrefdeltaError
from prefdelta.rubric import CRITERIA, DIMENSIONS, LEVELS


class TableError(PrefdeltaError):
    """A table is unreadable or breaks its model: the message names the file, the column and the check."""


class Table(pa.DataFrameModel):
    class Config:
        strict = True
        ordered = False


class Prompts(Table):
    """One row for each problem. Key: prompt_id (of an evaluation split: the item_id)."""

    prompt_id: str = pa.Field(unique=True)
    split: str
    task: str
    prompt: str = pa.Field(str_length={"min_value": 1})
    answer: str


class Dropped(Table):
    """One row for each training prompt that was left out, and why.

    ``item_id`` names the evaluation item that it is too like, ``overlap`` the runs of words that they share.
    """

    prompt_id: str
    task: str
    prompt: str
    reason: str
    detail: str = pa.Field(nullable=True)
    item_id: str = pa.Field(nullable=True)
    item_task: str = pa.Field(nullable=True)
    overlap: int = pa.Field(nullable=True, ge=0)


class Traces(Table):
    """One row for each completion by a generator. Key: trace_id.

    ``text`` is the whole completion, ``reasoning`` and ``response`` its parts; ``answer`` is null where none could be extracted.
    """

    trace_id: str = pa.Field(unique=True)
    prompt_id: str
    generator: str
    sample: int = pa.Field(ge=0)
    prompt: str
    text: str
    reasoning: str
    response: str
    answer: str = pa.Field(nullable=True)
    correct: bool
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])


class Ratings(Table):
    """One row for each trace x dimension x repeat. A rating that can't be read is null and has a ``reason``."""

    trace_id: str
    judge: str
    dimension: str = pa.Field(isin=list(DIMENSIONS))
    repeat: int = pa.Field(ge=0)
    rating: int = pa.Field(nullable=True, ge=LEVELS[0], le=LEVELS[-1])
    reason: str = pa.Field(nullable=True)

    @pa.dataframe_check(name="missing_has_reason")
    def missing_has_reason(cls, data: Any) -> Any:
        return data.lazyframe.select(pl.col("rating").is_null() == pl.col("reason").is_not_null())

    class Config:
        unique = ["trace_id", "judge", "dimension", "repeat"]


class References(Table):
    """Log-probability (nats, summed over completion tokens) under the untrained policy. Key: trace_id, max_length.

    ``n_prompt_tokens`` and ``n_tokens`` are the lengths before prompt and completion together are cut to ``max_length`` tokens.
    """

    trace_id: str
    max_length: int = pa.Field(gt=0)
    logp: float = pa.Field(le=0)
    n_prompt_tokens: int = pa.Field(gt=0)
    n_tokens: int = pa.Field(gt=0)

    class Config:
        unique = ["trace_id", "max_length"]


class Predictions(Table):
    """One row for each answer to an evaluation item. Key: item_id, decoding, sample."""

    item_id: str
    suite: str
    task: str
    decoding: str = pa.Field(isin=["sampled", "greedy"])
    sample: int = pa.Field(ge=0)
    text: str
    answer: str = pa.Field(nullable=True)
    correct: bool
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])

    class Config:
        unique = ["item_id", "decoding", "sample"]


def _rating() -> Any:
    return pa.Field(ge=LEVELS[0], le=LEVELS[-1])


def _delta() -> Any:
    return pa.Field(ge=LEVELS[0] - LEVELS[-1], le=LEVELS[-1] - LEVELS[0])


class Pairs(Table):
    """One row for each preference pair: both traces, mean ratings of both sides and deltas (chosen minus rejected)."""

    pair_id: str = pa.Field(unique=True)
    prompt_id: str
    prompt: str
    judge: str
    chosen_generator: str
    rejected_generator: str
    chosen_trace_id: str
    rejected_trace_id: str
    chosen: str
    rejected: str
    chosen_correct: bool
    rejected_correct: bool
    chosen_tokens: int = pa.Field(ge=0)
    rejected_tokens: int = pa.Field(ge=0)
    chosen_factuality: float = _rating()
    chosen_strategy_coherence: float = _rating()
    chosen_step_coherence: float = _rating()
    chosen_computational_precision: float = _rating()
    chosen_signal_to_noise: float = _rating()
    chosen_overall: float = _rating()
    rejected_factuality: float = _rating()
    rejected_strategy_coherence: float = _rating()
    rejected_step_coherence: float = _rating()
    rejected_computational_precision: float = _rating()
    rejected_signal_to_noise: float = _rating()
    rejected_overall: float = _rating()
    delta_factuality: float = _delta()
    delta_strategy_coherence: float = _delta()
    delta_step_coherence: float = _delta()
    delta_computational_precision: float = _delta()
    delta_signal_to_noise: float = _delta()
    delta_overall: float = _delta()


class Results(Table):
    """A result table: ``estimate`` is accuracy, or the paired difference to ``versus`` (both in points, 0 to 100).

    Where ``task`` is null, it is the mean over the suite's tasks.
    In ``delta_profile`` tables ``estimate`` is a mean sample-level delta (levels, -4 to 4) of ``dimension``.
    """

    experiment: str
    arm: str
    policy: str = pa.Field(nullable=True)
    method: str = pa.Field(nullable=True)
    judge: str
    chosen: str
    rejected: str
    selection: str
    suite: str = pa.Field(nullable=True)
    task: str = pa.Field(nullable=True)
    decoding: str = pa.Field(nullable=True)
    dimension: str = pa.Field(nullable=True)
    estimate: float
    ci_low: float
    ci_high: float
    versus: str = pa.Field(nullable=True)
    n_items: int = pa.Field(gt=0)
    n_seeds: int = pa.Field(nullable=True, gt=0)
    n_pairs: int = pa.Field(gt=0)
    n_steps: int = pa.Field(nullable=True, gt=0)
    n_chosen_truncated: int = pa.Field(nullable=True, ge=0)
    n_rejected_truncated: int = pa.Field(nullable=True, ge=0)
    generator_delta: float = pa.Field(ge=-100, le=100)
    mean_delta: float = _delta()

    @pa.dataframe_check(name="estimate_within_interval")
    def estimate_within_interval(cls, data: Any) -> Any:
        inside = (
            pl.col("estimate").is_finite() & (pl.col("ci_low") <= pl.col("estimate")) & (pl.col("estimate") <= pl.col("ci_high"))
        )
        return data.lazyframe.select(inside)


class Capability(Table):
    """Measured accuracy (points) of every model before any preference tuning."""

    model: str
    family: str
    hidden_size: int
    layers: int
    parameters: int = pa.Field(gt=0)
    suite: str
    task: str = pa.Field(nullable=True)
    decoding: str
    estimate: float = pa.Field(ge=0, le=100)
    ci_low: float
    ci_high: float
    n_items: int = pa.Field(gt=0)


class GeneratorDeltas(Table):
    """Generator-level delta of every (chosen, rejected) on the same prompts: in accuracy (points), or in mean rating."""

    chosen: str
    rejected: str
    judge: str
    quantity: str = pa.Field(isin=["accuracy", *CRITERIA])
    chosen_mean: float
    rejected_mean: float
    estimate: float
    ci_low: float
    ci_high: float
    n_prompts: int = pa.Field(gt=0)


class Decontamination(Table):
    """Training prompts by what became of them: ``kept``, or the reason why they were left out."""

    task: str
    outcome: str
    item_task: str = pa.Field(nullable=True)
    n_prompts: int = pa.Field(ge=0)


class Coverage(Table):
    """Ratings asked and missing, by judge, generator, dimension; ``reasons`` counts the causes."""

    judge: str
    generator: str
    dimension: str
    n_asked: int = pa.Field(gt=0)
    n_missing: int = pa.Field(ge=0)
    reasons: str


_LATEX = str.maketrans({character: f"\\{character}" for character in "_%&#${}"})


def _check(frame: pl.DataFrame, model: type[Table], path: Path | str) -> pl.DataFrame:
    schema = model.to_schema()
    columns = {name: str(column.dtype) for name, column in schema.columns.items()}
    found = {name: str(dtype) for name, dtype in frame.schema.items()}
    wrong = [
        f"column '{name}': expected {columns.get(name, 'no such column')}, found {found.get(name, 'none')}"
        for name in columns | found
        if columns.get(name) != found.get(name)
    ]
    if wrong:
        raise TableError(f"{path} is not a {model.__name__} table: " + "; ".join(wrong))
    try:
        return model.validate(frame, lazy=True)
    except SchemaErrors as errors:
        causes = errors.failure_cases.select("column", "check").unique(maintain_order=True)
        keys = ", ".join(schema.unique or [])
        wrong = [
            f"columns {keys} fail check {check}"
            if check == "multiple_fields_uniqueness"
            else f"column '{column}' fails check {check}"
            for column, check in causes.head(5).iter_rows()
        ]
        raise TableError(f"{path} breaks the {model.__name__} model: " + "; ".join(wrong)) from None


def rows_to_table(rows: list[dict[str, Any]], model: type[Table]) -> pl.DataFrame:
    """Rows as a frame with the columns and types of ``model``; what a row does not name is null."""
    columns = model.to_schema().columns
    types: Any = {name: column.dtype.type for name, column in columns.items()}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=types)


def write_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Checks ``frame`` against ``model`` and writes it as parquet, atomically. Raises TableError before any file appears."""
    checked = _check(frame, model, path)
    with replacing(path) as temporary:
        checked.write_parquet(temporary)


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
