"""The judge: rates every trace over an OpenAI-compatible API, several times, in five dimensions."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from prefdelta import rubric
from prefdelta.endpoint import free_port, serving
from prefdelta.errors import PrefdeltaError
from prefdelta.tables import Ratings, Traces, read_table, write_table

log = logging.getLogger(__name__)


class JudgeError(PrefdeltaError):
    """The judge's endpoint can't be used; the message names it."""


@contextlib.contextmanager
def _reachable(endpoint: dict[str, Any], log_file: Path | str) -> Iterator[tuple[str, str]]:
    """Base URL and key of ``endpoint``; the micro-world's own server runs for as long as the block."""
    if endpoint["kind"] == "url":
        if endpoint["api_key_env"] not in os.environ:
            raise JudgeError(f"the judge at {endpoint['base_url']} needs its key in ${endpoint['api_key_env']}")
        yield endpoint["base_url"], os.environ[endpoint["api_key_env"]]
        return
    port = free_port()
    flags = ["--noise", str(endpoint["noise"]), "--unparsable", str(endpoint["unparsable"])]
    command = [sys.executable, "-m", "prefdelta.microworld.server", "--port", str(port), *flags]
    with serving(command, f"http://127.0.0.1:{port}/health", log_file):
        yield f"http://127.0.0.1:{port}/v1", "none"


def rate_traces(
    traces: Path | str,
    output: Path | str,
    log_file: Path | str,
    *,
    judge: str,
    model: str,
    endpoint: dict[str, Any],
    repeats: int,
    choices_per_request: int,
    temperature: float,
    max_tokens: int,
    concurrency: int,
    retries: int,
    timeout: float,
    seed: int,
) -> None:
    """Writes the `Ratings` of all ``traces``: one row for each trace x dimension x repeat, null where unreadable.

    Each request asks for ``choices_per_request`` of the ``repeats`` ratings and has a seed of its own. Connection errors,
    timeouts, 429 and 5xx are retried ``retries`` times with the client's exponential backoff. Raises JudgeError where the
    endpoint refuses a request or stays out of reach: ratings are never made up for a judge that is not there.
    """
    asked = read_table(traces, Traces).select("trace_id", "prompt", "text")
    columns: dict[str, list[Any]] = {name: [] for name in ("trace_id", "dimension", "repeat", "rating", "reason")}

    async def rate_all(base_url: str, key: str) -> None:
        async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=timeout) as client:
            pending = _requests(asked, repeats // choices_per_request)
            progress = {"done": 0, "started": time.monotonic()}
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(rate_some(client, pending, progress))
            except* (APIConnectionError, APIStatusError) as errors:
                error = errors.exceptions[0]
                raise JudgeError(f"the judge {judge} at {base_url} failed after {retries} retries: {error}") from None

    async def rate_some(client: AsyncOpenAI, pending: AsyncIterator[tuple[str, str, str, int]], progress: Any) -> None:
        async for trace_id, problem, trace, request in pending:
            response = await client.chat.completions.create(  # type: ignore[call-overload]
                model=model,
                messages=rubric.messages(problem, trace),
                response_format=rubric.RESPONSE_FORMAT,
                n=choices_per_request,
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed * 1000 + request,
            )
            contents = [choice.message.content for choice in response.choices]
            # A server that does not know `n` gives fewer choices: what was not answered is missing, like what can't be read.
            contents += [None] * (choices_per_request - len(contents))
            for choice, content in enumerate(contents):
                ratings, reason = rubric.parse(content)
                for dimension, rating in ratings.items():
                    columns["trace_id"].append(trace_id)
                    columns["dimension"].append(dimension)
                    columns["repeat"].append(request * choices_per_request + choice)
                    columns["rating"].append(rating)
                    columns["reason"].append(reason if rating is None else None)
            progress["done"] += 1
            if progress["done"] % 1000 == 0:
                left = (time.monotonic() - progress["started"]) * (n_requests / progress["done"] - 1)
                log.info("judged %d of %d requests, about %.0f s left", progress["done"], n_requests, left)

    n_requests = len(asked) * (repeats // choices_per_request)
    with _reachable(endpoint, log_file) as (base_url, key):
        asyncio.run(rate_all(base_url, key))
    types = {"rating": pl.Int64, "reason": pl.String, "repeat": pl.Int64}
    ratings = pl.DataFrame(columns, schema_overrides=types).with_columns(judge=pl.lit(judge))
    missing = ratings["rating"].null_count()
    log.info("%d ratings, %d of them missing", len(ratings), missing)
    order = ratings.sort("trace_id", "repeat", "dimension").select(list(Ratings.to_schema().columns))
    write_table(order, Ratings, output)


async def _requests(asked: pl.DataFrame, n_requests: int) -> AsyncIterator[tuple[str, str, str, int]]:
    for trace_id, problem, trace in asked.iter_rows():
        for request in range(n_requests):
            yield trace_id, problem, trace, request
