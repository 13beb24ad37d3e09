"""Requests: what a study will ask of endpoints that take money, and what that costs at most, before the first request."""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from prefdelta.forecast.settings import RequestsSettings
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Prompts

CHARACTERS = 4  # of a token, in English


class Requests(Table):
    """What each generator, and each judge for each generator's traces, asks of an endpoint of kind `url`, if none is stored yet.

    ``tokens_read`` are estimated from the characters of what is sent, four for a token, a trace taken as long as it may be;
    ``tokens_written`` are the most that may be written. ``price`` (USD) is what both cost; null without `prices` in the
    configuration. For a judge of single steps, a trace is taken to have one every 25 tokens. Answers that are asked for once
    more, since they can't be read, come on top. Key: asked, generator.
    """

    asked: str
    generator: str
    model: str
    n_requests: int = pa.Field(ge=0)
    tokens_read: float = pa.Field(ge=0)
    tokens_written: float = pa.Field(ge=0)
    price: float = pa.Field(nullable=True, ge=0)
    cap: float = pa.Field(nullable=True, ge=0)

    class Config:
        unique = ["asked", "generator"]


def tabulate_requests(prompts: Path, table: Path, *, settings: RequestsSettings) -> None:
    """Writes `Requests`, from the lengths of ``prompts`` and what ``settings`` say is sent with them."""
    texts = read_table(prompts, Prompts)["prompt"]
    n, characters = len(texts), int(texts.str.len_chars().sum())
    rows = []
    for one in settings.asked:
        each = one.requests_per_prompt
        read = each * (n * (one.characters / CHARACTERS + one.trace_tokens) + characters / CHARACTERS)
        written = n * each * one.max_tokens
        rows.append(
            {
                "asked": one.name,
                "generator": one.generator,
                "model": one.model,
                "n_requests": n * each,
                "tokens_read": read,
                "tokens_written": written,
                "price": one.prices.of(read, written) if one.prices else None,
                "cap": one.cap,
            }
        )
    write_result_table(rows_to_table(rows, Requests), Requests, table)


def answer_requests(requests: pl.DataFrame) -> list[str]:
    """What ``requests`` (`Requests`) come to, in words; nothing where no endpoint takes money."""
    lines = []
    for asked in requests["asked"].unique(maintain_order=True):
        rows = requests.filter(asked=asked)
        n, read, written = (rows[column].sum() for column in ("n_requests", "tokens_read", "tokens_written"))
        told = f"Requests by **{asked}**: {n}, about {read:.3g} tokens read and at most {written:.3g} written"
        if rows["price"].null_count():
            lines.append(f"{told}; what they cost is unknown without `prices` in `run`.")
        else:
            cap = rows["cap"][0]
            capped = "no cap" if cap is None else f"cap {cap:,.2f}"
            lines.append(f"{told}: at most {rows['price'].sum():,.2f} USD, {capped}.")
    return lines
