"""The judge: rates every trace over an OpenAI-compatible API, several times, in five dimensions."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prefdelta.endpoint import batch as by_batch
from prefdelta.endpoint import client
from prefdelta.endpoint.client import Body, Choice
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store
from prefdelta.judge import rubric
from prefdelta.judge.labels import read_labels
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Ratings, Traces

log = logging.getLogger(__name__)

_SECOND_TRY = 500  # what is added to the seed of a repeat


class JudgeError(PrefdeltaError):
    """The judge's endpoint can't be used; the message names it."""


def rate_traces(
    traces: Path | str,
    output: Path | str,
    log_file: Path | str,
    *,
    checkpoint: Path | None,
    judge: str,
    model: str,
    endpoint: Mapping[str, Any],
    repeats: int,
    choices_per_request: int,
    separate_dimensions: bool,
    reasoning_effort: str | None,
    temperature: float,
    max_tokens: int,
    batch: bool,
    concurrency: int,
    retries: int,
    timeout: float,
    seed: int,
    threads: int,
) -> None:
    """Writes the `Ratings` of all ``traces``: one row for each trace x dimension x repeat, null with a reason where unreadable.

    A request asks for ``choices_per_request`` of the ``repeats`` ratings, in all dimensions or (``separate_dimensions``) in one,
    and has a seed of its own. ``checkpoint`` is the folder that an endpoint of kind ``vllm`` or ``transformers`` serves (see
    `client.connected`); one of kind ``file`` is no endpoint, but ratings that are there already (`labels`, LabelsError).
    What the store knows is not asked again; with ``batch`` the rest goes through the provider's Batch API. An answer that can't
    be read is asked for once more, with another seed and without a schema. Raises JudgeError where the endpoint refuses
    requests, stays out of reach, or gives no readable rating at all: ratings are never made up.
    """
    asked = read_table(traces, Traces).select("trace_id", "prompt", "text")
    # The same number of requests for each trace: (dimensions, first repeat).
    groups: list[tuple[str, ...]] = [(name,) for name in DIMENSIONS] if separate_dimensions else [DIMENSIONS]
    kinds = [(dimensions, first) for dimensions in groups for first in range(0, repeats, choices_per_request)]
    # A byte for each trace x repeat x dimension: 0 is no rating yet, and no reason, else the reason's place in `reasons`.
    found, why = np.zeros((2, len(asked), repeats, len(DIMENSIONS)), np.uint8)
    reasons: list[str | None] = [None]
    unread = np.zeros((len(asked), len(groups), repeats), bool)  # what is asked for once more

    def request(row: int, dimensions: tuple[str, ...], repeat: int) -> Body:
        _, problem, trace = asked.row(row)
        # Servers draw the choices of one request from successive seeds (vLLM does), so each repeat has its own.
        drawn = client.request_seed(seed, dimensions, problem, trace) + repeat
        body: Body = {"model": model, "messages": rubric.messages(problem, trace, dimensions)}
        body |= {"temperature": temperature, "max_tokens": max_tokens, "seed": drawn}
        return {**body, "reasoning_effort": reasoning_effort} if reasoning_effort else body

    def first_try(number: int) -> Body:
        row, kind = divmod(number, len(kinds))
        dimensions, first = kinds[kind]
        structured = {"n": choices_per_request, "response_format": rubric.response_format(dimensions)}
        return {**request(row, dimensions, first), **structured}

    def second_try(number: int) -> Body:
        row, group, repeat = again[number].tolist()
        return request(row, groups[group], _SECOND_TRY + repeat)

    def read(row: int, dimensions: tuple[str, ...], repeat: int, choice: Choice) -> bool:
        """Takes the ratings that are not there yet. Returns whether some are missing that another try may bring."""
        ratings, reason = rubric.parse(choice.content, dimensions)
        if reason and choice.finish_reason == "length":
            reason = "cut off at max_tokens"
        if (reason := choice.declined or reason) not in reasons:
            reasons.append(reason)
        for dimension, rating in ratings.items():
            place = (row, repeat, DIMENSIONS.index(dimension))
            if not found[place]:
                found[place] = 0 if choice.declined else rating or 0
                why[place] = 0 if found[place] else reasons.index(reason)
        return reason is not None and not choice.declined

    def first_answer(number: int, choices: list[Choice]) -> None:
        row, kind = divmod(number, len(kinds))
        dimensions, first = kinds[kind]
        for repeat, choice in enumerate(choices[:choices_per_request], first):
            unread[row, groups.index(dimensions), repeat] = read(row, dimensions, repeat, choice)

    def second_answer(number: int, choices: list[Choice]) -> None:
        row, group, repeat = again[number].tolist()
        read(row, groups[group], repeat, choices[0])

    if endpoint["kind"] == "file":
        labels = read_labels(endpoint["path"], asked["trace_id"], judge)
        write_table(labels.sort("trace_id", "repeat", "dimension"), Ratings, output)
        return
    connected = client.connected(endpoint, model=model, checkpoint=checkpoint, threads=threads, log_file=log_file)
    try:
        with connected as connection:
            store = Store(connection.identity)
            ask = partial(by_batch.ask if batch else partial(client.ask, concurrency=concurrency), connection)
            ask(len(asked) * len(kinds), first_try, first_answer, store=store, retries=retries, timeout=timeout)
            again = np.argwhere(unread)
            if len(again):
                log.info("%d answers could not be read and are asked for once more", len(again))
                ask(len(again), second_try, second_answer, store=store, retries=retries, timeout=timeout)
    except EndpointError as error:
        raise JudgeError(f"the judge {judge}: {error}") from None
    row, repeat, dimension = (index.ravel() for index in np.indices(found.shape, np.uint32))
    ratings = pl.DataFrame(
        {
            "trace_id": asked["trace_id"].gather(row),
            "judge": pl.repeat(judge, len(row), eager=True),
            "dimension": pl.Series(DIMENSIONS).gather(dimension),
            "repeat": pl.Series(repeat, dtype=pl.Int64),
            "rating": pl.Series(found.ravel(), dtype=pl.Int64).replace(0, None),
            "reason": pl.Series(reasons, dtype=pl.String).gather(why.ravel()),
        }
    )
    missing = ratings["rating"].null_count()
    log.info("%d ratings, %d of them missing", len(ratings), missing)
    if 0 < len(ratings) == missing:
        told = ", ".join(ratings["reason"].value_counts(sort=True)["reason"])
        raise JudgeError(f"the judge {judge}: none of {missing} ratings could be read ({told}): see {log_file}")
    write_table(ratings.sort("trace_id", "repeat", "dimension"), Ratings, output)
