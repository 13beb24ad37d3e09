"""The tables that pass between stages: a pandera model each."""

import math
from functools import cache
from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.study.dimensions import Dimensions
from prefdelta.tables.check import Table, with_columns


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

    ``text`` is the whole completion, ``reasoning`` and ``response`` its parts; ``answer`` is null where none could be extracted,
    ``correct`` where the answer could not be graded within the limits of `tasks`: it may be right or wrong.
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
    correct: bool = pa.Field(nullable=True)
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])


class Ratings(Table):
    """One row for each trace x dimension x repeat. A rating that can't be read is null and has a ``reason``.

    ``rating`` is on the scale of the judge's rubric: an integer where its ratings are whole, else a real number.
    """

    trace_id: str
    judge: str
    dimension: str
    repeat: int = pa.Field(ge=0)

    @classmethod
    @cache
    def by(cls, dimensions: Dimensions) -> type[Table]:
        low, high = dimensions.scale or (-math.inf, math.inf)
        columns: dict[str, tuple[type, Any]] = {
            "dimension": (str, pa.Field(isin=list(dimensions.names))),
            "rating": (int if dimensions.whole else float, pa.Field(nullable=True, ge=low, le=high)),
            "reason": (str, pa.Field(nullable=True)),
        }
        return with_columns(cls, columns)

    @pa.dataframe_check(name="missing_has_reason")
    def missing_has_reason(cls, data: Any) -> Any:
        return data.lazyframe.select(pl.col("rating").is_null() == pl.col("reason").is_not_null())

    class Config:
        unique = ["trace_id", "repeat", "dimension", "judge"]  # in the order in which they are sorted: see check.Keys


class References(Table):
    """Log-probability (nats, summed over completion tokens) under the untrained policy. Key: trace_id.

    ``n_prompt_tokens`` and ``n_tokens`` are the lengths before prompt and completion together are cut to the length limit.
    """

    trace_id: str = pa.Field(unique=True)
    logp: float = pa.Field(le=0)
    n_prompt_tokens: int = pa.Field(gt=0)
    n_tokens: int = pa.Field(gt=0)


class Predictions(Table):
    """One row for each answer to an evaluation item. Key: item_id, decoding, sample. ``correct``: as of `Traces`."""

    item_id: str
    suite: str
    task: str
    decoding: str = pa.Field(isin=["sampled", "greedy"])
    sample: int = pa.Field(ge=0)
    text: str
    answer: str = pa.Field(nullable=True)
    correct: bool = pa.Field(nullable=True)
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])

    class Config:
        unique = ["item_id", "decoding", "sample"]


class Tempered(Table):
    """One row for each sampled answer of an untuned policy at another temperature. Key: item_id, temperature, sample.

    The other columns are those of `Predictions`.
    """

    item_id: str
    suite: str
    task: str
    temperature: float = pa.Field(gt=0)
    sample: int = pa.Field(ge=0)
    text: str
    answer: str = pa.Field(nullable=True)
    correct: bool = pa.Field(nullable=True)
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])

    class Config:
        unique = ["item_id", "temperature", "sample"]


class Shifts(Table):
    """One row for each text whose log-probability a checkpoint and its untuned policy give. Key: kind, temperature, key.

    ``kind``: `answer` (the checkpoint's own, sampled, to the evaluation item ``key``, which is of ``suite`` and ``task``), or
    `chosen` and `rejected` (the traces of the held-out pair ``key``). ``logp`` and ``base_logp`` are of the softmax at
    ``temperature``, under the checkpoint and under the untuned policy; ``entropy`` is that of the checkpoint's next tokens. All
    are nats, summed over the ``n_tokens`` tokens of the completion, its end included.
    """

    kind: str = pa.Field(isin=["answer", "chosen", "rejected"])
    temperature: float = pa.Field(gt=0)
    key: str
    suite: str = pa.Field(nullable=True)
    task: str = pa.Field(nullable=True)
    logp: float = pa.Field(le=0)
    base_logp: float = pa.Field(le=0)
    entropy: float = pa.Field(ge=0)
    n_tokens: int = pa.Field(ge=0)

    class Config:
        unique = ["kind", "temperature", "key"]


class Pairs(Table):
    """One row for each preference pair: both traces, mean ratings of both sides and deltas (chosen minus rejected).

    ``chosen_``, ``rejected_`` and ``delta_`` stand before each criterion: the dimensions of the judge's rubric, and ``overall``.
    ``chosen_correct`` and ``rejected_correct``: as of `Traces`.
    """

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
    chosen_correct: bool = pa.Field(nullable=True)
    rejected_correct: bool = pa.Field(nullable=True)
    chosen_tokens: int = pa.Field(ge=0)
    rejected_tokens: int = pa.Field(ge=0)

    @classmethod
    @cache
    def by(cls, dimensions: Dimensions) -> type[Table]:
        low, high = dimensions.scale or (-math.inf, math.inf)
        bounds = {"chosen": (low, high), "rejected": (low, high), "delta": (low - high, high - low)}
        columns: dict[str, tuple[type, Any]] = {
            f"{of}_{name}": (float, pa.Field(ge=least, le=most))
            for of, (least, most) in bounds.items()
            for name in dimensions.criteria
        }
        return with_columns(cls, columns)
