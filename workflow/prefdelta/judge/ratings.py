"""The judge: rates every trace over an OpenAI-compatible API, several times, in all dimensions of its rubric."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
from prefdelta.study.endpoints import FileEndpoint, VllmEndpoint
from prefdelta.study.judges import Judge
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Ratings, Traces

log = logging.getLogger(__name__)

Numbers = NDArray[np.float64]  # NaN: no rating
Reasons = NDArray[np.uint8]

_SECOND_TRY = 500  # what is added to the seed of a repeat
_NO_STEP = "no step to rate"


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
    and has a seed of its own. With ``step_coherence: prefix`` each of the trace's `steps` is asked about by itself (as arXiv
    2510.20603 does), and the rating is the mean of theirs, of whole ratings a whole one, halves up; it is missing where that of
    one step is.
    ``manifest`` is that of the checkpoint that an endpoint of kind ``vllm`` or ``transformers`` serves; ``labels`` are the
    ratings of one of kind ``file``, which is no endpoint (`labels`, LabelsError). What the store knows is not asked again. An
    answer that can't be read is asked for once more, with another seed and without a schema. Raises JudgeError where the
    endpoint refuses requests, stays out of reach, or gives no readable rating at all: none is made up. What is too long for the
    model is missing; what is too long for a run setting is a JudgeError, once all else is in the store.
    """
    judge, asked = settings.settings, read_table(traces, Traces).select("trace_id", "prompt", "text")
    if isinstance(judge.endpoint, FileEndpoint):
        assert labels is not None
        found = read_labels(labels, asked["trace_id"], settings.judge, judge.rubric.rated)
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
    write_table(found.sort("trace_id", "repeat", "dimension"), Ratings, ratings, judge.rubric.rated)


class _Rated:
    """The traces of one job, what is asked about them, and the ratings found so far.

    What one request asks about is a *unit*: a group of dimensions of a trace, by trace; then, where step coherence is judged by
    prefixes, a step of a trace. What has a level is a *cell*: a dimension of a trace, by trace; then a step.
    """

    def __init__(self, traces: pl.DataFrame, judge: Judge) -> None:
        """``traces``: trace_id, prompt, text."""
        self.traces, self.n, self.seed, self.repeats = traces, judge.choices_per_request, judge.seed, judge.repeats
        self.settings: Body = {"model": judge.model, "temperature": judge.temperature, "max_tokens": judge.max_tokens}
        if judge.reasoning_effort:
            self.settings["reasoning_effort"] = judge.reasoning_effort
        self.rubric, self.names = judge.rubric, judge.rubric.rated.names
        self.groups, self.by_step = judge.groups, judge.step_coherence == "prefix"
        self.firsts = range(0, judge.repeats, self.n)  # the first repeat of each request about a unit
        spans = [rubric.steps(text) for text in traces["text"]] if self.by_step else []
        self.steps = np.array([span for several in spans for span in several], np.int64).reshape(-1, 2)
        self.row_of_step = np.repeat(np.arange(len(spans)), [len(several) for several in spans])
        # For each cell x repeat the rating, and the place in `reasons` of why there is none; the first is no reason.
        shape = (len(traces) * len(self.names) + len(self.steps), judge.repeats)
        self.found, self.why = np.full(shape, np.nan), np.zeros(shape, np.uint8)
        self.reasons: list[str | None] = [None]
        # What is asked for once more.
        self.unread = np.zeros((len(traces) * len(self.groups) + len(self.steps), judge.repeats), bool)

    def ask(self, ask: Callable[[int, Callable[[int], Body], Callable[[int, list[Choice]], None]], None]) -> None:
        """Asks for all ratings, then once more, each by itself and without a schema, for what could not be read."""
        ask(len(self.unread) * len(self.firsts), self._first, self._first_answered)
        again = np.argwhere(self.unread)
        if len(again):
            log.info("%d answers could not be read and are asked for once more", len(again))

            def second(number: int) -> Body:
                unit, repeat = again[number].tolist()
                return self._request(unit, _SECOND_TRY + repeat)

            def answered(number: int, choices: list[Choice]) -> None:
                unit, repeat = again[number].tolist()
                self._read(unit, repeat, choices[0])

            ask(len(again), second, answered)

    def _of(self, unit: int) -> tuple[int, tuple[str, ...], int | None]:
        """The row of a unit's trace, the dimensions that are asked for, and the number of the step that it is, if it is one."""
        n_groups = len(self.traces) * len(self.groups)
        if unit >= n_groups:
            step = unit - n_groups
            assert self.rubric.step
            return int(self.row_of_step[step]), (self.rubric.step.name,), step
        row, group = divmod(unit, len(self.groups))
        return row, self.groups[group], None

    def _request(self, unit: int, repeat: int) -> Body:
        row, dimensions, step = self._of(unit)
        _, problem, trace = self.traces.row(row)
        span = () if step is None else self.steps[step].tolist()
        if span:
            asked = rubric.step_messages(self.rubric, problem, trace, span)
        else:
            asked = rubric.messages(self.rubric, dimensions, problem, trace)
        # Servers draw the choices of one request from successive seeds (vLLM does), so each repeat has its own.
        drawn = client.request_seed(self.seed, dimensions, problem, trace, *span) + repeat
        return {**self.settings, "messages": asked, "seed": drawn}

    def _first(self, number: int) -> Body:
        unit, place = divmod(number, len(self.firsts))
        structured = {"n": self.n, "response_format": rubric.response_format(self.rubric, self._of(unit)[1])}
        return {**self._request(unit, self.firsts[place]), **structured}

    def _first_answered(self, number: int, choices: list[Choice]) -> None:
        unit, place = divmod(number, len(self.firsts))
        for repeat, choice in enumerate(choices[: self.n], self.firsts[place]):
            self.unread[unit, repeat] = self._read(unit, repeat, choice)

    def _read(self, unit: int, repeat: int, choice: Choice) -> bool:
        """Takes the ratings that are not there yet. Returns whether some are missing that another try may bring."""
        row, dimensions, step = self._of(unit)
        ratings, reason = rubric.parse(self.rubric, dimensions, choice, self.traces.row(row)[2])
        if (reason := choice.declined or reason) not in self.reasons:
            log.warning("missing ratings (%s), the first such answer: %.500r", reason, choice.content or choice.reasoning)
            self.reasons.append(reason)
        first = len(self.names) * (row if step is None else len(self.traces))
        for dimension, rating in ratings.items():
            cell = first + (self.names.index(dimension) if step is None else step)
            if np.isnan(self.found[cell, repeat]):
                missing = choice.declined or rating is None
                self.found[cell, repeat] = np.nan if missing else rating
                self.why[cell, repeat] = self.reasons.index(reason) if missing else 0
        return reason is not None and not choice.declined

    def table(self, judge: str) -> pl.DataFrame:
        """The `Ratings`."""
        n = len(self.traces) * len(self.names)
        shape = (len(self.traces), len(self.names), self.repeats)
        found, why = self.found[:n].reshape(shape), self.why[:n].reshape(shape)
        if self.by_step:
            assert self.rubric.step
            place = self.names.index(self.rubric.step.name)
            found[:, place], why[:, place] = self._of_steps(self.found[n:], self.why[n:])
        row, dimension, repeat = (index.ravel() for index in np.indices(shape, np.uint32))
        return pl.DataFrame(
            {
                "trace_id": self.traces["trace_id"].gather(row),
                "judge": pl.repeat(judge, len(row), eager=True),
                "dimension": pl.Series(self.names).gather(dimension),
                "repeat": pl.Series(repeat, dtype=pl.Int64),
                "rating": pl.Series(found.ravel()).fill_nan(None).cast(pl.Int64 if self.rubric.rated.whole else pl.Float64),
                "reason": pl.Series(self.reasons, dtype=pl.String).gather(why.ravel()),
            }
        )

    def _of_steps(self, found: Numbers, why: Reasons) -> tuple[Numbers, Reasons]:
        """(trace x repeat) the means of the steps' ratings, NaN where one is missing, and the first missing one's reason."""
        sums = np.zeros((len(self.traces), self.repeats))
        np.add.at(sums, self.row_of_step, found)
        n_steps = np.bincount(self.row_of_step, minlength=len(self.traces))[:, None]
        means = np.where(n_steps > 0, sums / np.maximum(n_steps, 1), np.nan)
        reasons = np.zeros(means.shape, np.uint8)
        if not n_steps.all():
            self.reasons.append(_NO_STEP)
            reasons[n_steps[:, 0] == 0] = self.reasons.index(_NO_STEP)
        step, repeat = np.nonzero(np.isnan(found))
        reasons[self.row_of_step[step[::-1]], repeat[::-1]] = why[step[::-1], repeat[::-1]]  # of several the last one stays
        return np.floor(means + 0.5) if self.rubric.rated.whole else means, reasons
