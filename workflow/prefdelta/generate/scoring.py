"""Scored completions: the columns that traces and predictions share, by the task of each problem."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from prefdelta import tasks
from prefdelta.generate.completions import Completion


def scored(
    problems: pl.DataFrame, completions: list[list[Completion]], threads: int
) -> Iterator[tuple[tuple[dict[str, Any], int, Completion], dict[str, Any]]]:
    """((problem, number of the sample, completion), columns) of every completion, in order.

    ``problems`` are `Prompts`; columns: text, answer, correct, n_tokens, finish_reason. The answer is read from the response,
    never from the reasoning. ``correct`` is what the source says where it has graded a completion, else the task's grade, which
    may be None.
    """
    flat = [
        (problem, number, completion)
        for problem, several in zip(problems.iter_rows(named=True), completions, strict=True)
        for number, completion in enumerate(several)
    ]
    graded: dict[int, tasks.Grade] = {}
    for task in problems["task"].unique(maintain_order=True):
        places = [place for place, (problem, _, _) in enumerate(flat) if problem["task"] == task]
        responses = [flat[place][2].response for place in places]
        references = [flat[place][0]["answer"] for place in places]
        graded |= zip(places, tasks.score_all(task, responses, references, threads), strict=True)
    for place, (problem, number, completion) in enumerate(flat):
        answer, correct = graded[place]
        columns = {
            "text": completion.text,
            "answer": answer,
            "correct": correct if completion.correct is None else completion.correct,
            "n_tokens": completion.n_tokens,
            "finish_reason": completion.finish_reason,
        }
        yield (problem, number, completion), columns
