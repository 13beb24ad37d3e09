"""The judge: rates every trace over an OpenAI-compatible API, several times, in five dimensions."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.endpoint import batch as by_batch
from prefdelta.endpoint import client
from prefdelta.endpoint.answers import Body, Choice
from prefdelta.endpoint.plain import plainly
from prefdelta.endpoint.refusals import TOO_LONG
from prefdelta.endpoint.servers import connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.spending import Spending
from prefdelta.endpoint.store import Store
from prefdelta.judge import rubric
from prefdelta.judge.labels import read_labels
from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.endpoints import FileEndpoint, VllmEndpoint
from prefdelta.study.judges import Judge
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Ratings, Traces

log = logging.getLogger(__name__)

_SECOND_TRY = 500  # what is added to the seed of a repeat


class JudgeError(PrefdeltaError):
    """The judge's endpoint can't be used; the message names it."""


def rate_traces(
    traces: Path,
    manifest: Path | None,
    labels: Path | None,
    ratings: Path,
    *,
    settings: RatingsSettings,
    run: RatingsRun,
    threads: int,
    log_file: Path,
) -> None:
    """Writes the `Ratings` of all ``traces``: one row for each trace x dimension x repeat, null with a reason where unreadable.

    A request asks for ``choices_per_request`` of the ``repeats`` ratings, in all dimensions or (``separate_dimensions``) in one,
    and has a seed of its own. ``manifest`` is that of the checkpoint that an endpoint of kind ``vllm`` or ``transformers``
    serves; ``labels`` are the ratings of one of kind ``file``, which is no endpoint (`labels`, LabelsError). What the store knows
    is not asked again. An answer that can't be read is asked for once more, with another seed and without a schema. Raises
    JudgeError where the endpoint refuses requests, stays out of reach, or gives no readable rating at all: none is made up. What
    is too long for the model is missing; what is too long for a run setting is a JudgeError, once all else is in the store.
    """
    judge, asked = settings.settings, read_table(traces, Traces).select("trace_id", "prompt", "text")
    if isinstance(judge.endpoint, FileEndpoint):
        assert labels is not None
        found = read_labels(labels, asked["trace_id"], settings.judge)
    else:
        checkpoint = checked_folder(manifest) if manifest else None
        rated, requests = _Rated(asked, judge), run.requests
        reached = connected(
            judge.endpoint, Served(judge.model, checkpoint, settings.dtype, run.model), threads=threads, log_file=log_file
        )
        try:
            with reached as connection:
                ask = plainly(by_batch.ask if requests.batch else client.ask, judge.endpoint, checkpoint)
                spending = Spending(judge.model, requests, f"run.judges.{settings.judge}")
                rated.ask(partial(ask, connection, store=Store(connection.identity, spending), run=requests))
                spending.tell()
        except EndpointError as error:
            raise JudgeError(f"the judge {settings.judge}: {error}") from None
        found = rated.table(settings.judge)
        too_long, room = found.filter(reason=TOO_LONG)["trace_id"].unique(maintain_order=True), run.model.max_model_len
        if isinstance(judge.endpoint, VllmEndpoint) and room and len(too_long):
            raise JudgeError(
                f"the judge {settings.judge}: {len(too_long)} of {len(asked)} traces, such as {too_long[0]}, need more than "
                f"max_model_len = {room} tokens, request and answer together: raise "
                f"run.models.{judge.endpoint.model}.max_model_len, or leave it out for the model's own"
            )
        missing = found["rating"].null_count()
        log.info("%d ratings, %d of them missing", len(found), missing)
        if 0 < len(found) == missing:
            told = ", ".join(found["reason"].value_counts(sort=True)["reason"])
            raise JudgeError(f"the judge {settings.judge}: none of {missing} ratings could be read ({told}): see {log_file}")
    write_table(found.sort("trace_id", "repeat", "dimension"), Ratings, ratings)


class _Rated:
    """The traces of one job, what is asked about them, and the ratings found so far."""

    def __init__(self, traces: pl.DataFrame, judge: Judge) -> None:
        """``traces``: trace_id, prompt, text."""
        self.traces, self.n, self.seed, repeats = traces, judge.choices_per_request, judge.seed, judge.repeats
        self.settings: Body = {"model": judge.model, "temperature": judge.temperature, "max_tokens": judge.max_tokens}
        if judge.reasoning_effort:
            self.settings["reasoning_effort"] = judge.reasoning_effort
        self.groups: list[tuple[str, ...]] = [(name,) for name in DIMENSIONS] if judge.separate_dimensions else [DIMENSIONS]
        # What the first requests about each trace ask for: (place of the group, first repeat).
        self.kinds = [(group, first) for group in range(len(self.groups)) for first in range(0, repeats, self.n)]
        # A byte for each trace x repeat x dimension: 0 is no rating yet, and no reason, else the reason's place in `reasons`.
        self.found, self.why = np.zeros((2, len(traces), repeats, len(DIMENSIONS)), np.uint8)
        self.reasons: list[str | None] = [None]
        self.unread = np.zeros((len(traces), len(self.groups), repeats), bool)  # what is asked for once more

    def ask(self, ask: Callable[[int, Callable[[int], Body], Callable[[int, list[Choice]], None]], None]) -> None:
        """Asks for all ratings, then once more, each by itself and without a schema, for what could not be read."""
        ask(len(self.traces) * len(self.kinds), self._first, self._first_answered)
        again = np.argwhere(self.unread)
        if len(again):
            log.info("%d answers could not be read and are asked for once more", len(again))

            def second(number: int) -> Body:
                row, group, repeat = again[number].tolist()
                return self._request(row, group, _SECOND_TRY + repeat)

            def answered(number: int, choices: list[Choice]) -> None:
                row, group, repeat = again[number].tolist()
                self._read(row, group, repeat, choices[0])

            ask(len(again), second, answered)

    def _request(self, row: int, group: int, repeat: int) -> Body:
        _, problem, trace = self.traces.row(row)
        dimensions = self.groups[group]
        # Servers draw the choices of one request from successive seeds (vLLM does), so each repeat has its own.
        drawn = client.request_seed(self.seed, dimensions, problem, trace) + repeat
        return {**self.settings, "messages": rubric.messages(problem, trace, dimensions), "seed": drawn}

    def _first(self, number: int) -> Body:
        row, kind = divmod(number, len(self.kinds))
        group, first = self.kinds[kind]
        structured = {"n": self.n, "response_format": rubric.response_format(self.groups[group])}
        return {**self._request(row, group, first), **structured}

    def _first_answered(self, number: int, choices: list[Choice]) -> None:
        row, kind = divmod(number, len(self.kinds))
        group, first = self.kinds[kind]
        for repeat, choice in enumerate(choices[: self.n], first):
            self.unread[row, group, repeat] = self._read(row, group, repeat, choice)

    def _read(self, row: int, group: int, repeat: int, choice: Choice) -> bool:
        """Takes the ratings that are not there yet. Returns whether some are missing that another try may bring."""
        ratings, reason = rubric.parse(choice, self.traces.row(row)[2], self.groups[group])
        if (reason := choice.declined or reason) not in self.reasons:
            log.warning("missing ratings (%s), the first such answer: %.500r", reason, choice.content or choice.reasoning)
            self.reasons.append(reason)
        for dimension, rating in ratings.items():
            place = (row, repeat, DIMENSIONS.index(dimension))
            if not self.found[place]:
                self.found[place] = 0 if choice.declined else rating or 0
                self.why[place] = 0 if self.found[place] else self.reasons.index(reason)
        return reason is not None and not choice.declined

    def table(self, judge: str) -> pl.DataFrame:
        """The `Ratings`."""
        row, repeat, dimension = (index.ravel() for index in np.indices(self.found.shape, np.uint32))
        return pl.DataFrame(
            {
                "trace_id": self.traces["trace_id"].gather(row),
                "judge": pl.repeat(judge, len(row), eager=True),
                "dimension": pl.Series(DIMENSIONS).gather(dimension),
                "repeat": pl.Series(repeat, dtype=pl.Int64),
                "rating": pl.Series(self.found.ravel(), dtype=pl.Int64).replace(0, None),
                "reason": pl.Series(self.reasons, dtype=pl.String).gather(self.why.ravel()),
            }
        )
