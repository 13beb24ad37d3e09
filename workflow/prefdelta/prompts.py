"""Prompts: the problems of each split; no training prompt is an evaluation item, or too like one."""

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta import tasks as benchmarks
from prefdelta.decontaminate import decontaminate
from prefdelta.errors import PrefdeltaError
from prefdelta.microworld.problems import draw, held_out, render
from prefdelta.tables import Dropped, Prompts, read_table, rows_to_table, write_table

log = logging.getLogger(__name__)

MOST_IN_VAIN = 10_000  # draws in a row without a new problem


class PromptsError(PrefdeltaError):
    """There are fewer different problems than a split asks for."""


def make_items(
    output: Path | str, *, split: str, tasks: dict[str, int | dict[str, Any]], operations: list[int] | None, seed: int
) -> None:
    """Writes the `Prompts` table of the suite ``split``: the evaluation items of its tasks.

    A task of the micro-world has a number of problems, any other a source (`config.BenchmarkSource`).
    """
    write_table(_table(split, _problems(split, tasks, operations, seed)), Prompts, output)


def make_prompts(
    suites: Sequence[Path | str],
    output: Path | str,
    dropped: Path | str,
    *,
    tasks: dict[str, int | dict[str, Any]],
    operations: list[int] | None,
    seed: int,
    ngram: int,
) -> None:
    """Writes the training `Prompts`, and the `Dropped` ones that were too like an item of ``suites`` (or not fit, by their task).

    Of a data set the first n that are left are taken, in the order of their ids, which are hashes. Raises PromptsError where
    fewer are left.
    """
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    unfit: list[dict[str, Any]] = []
    prompts = _table("train", _problems("train", tasks, operations, seed, unfit))
    # Problems of the micro-world are told apart by `held_out`: of its few words any two stories share runs.
    drawn = pl.col("task").is_in([task for task, source in tasks.items() if isinstance(source, int)])
    clean, alike = decontaminate(prompts.filter(~drawn), items, n=ngram)
    kept = pl.concat([prompts.filter(drawn), clean])
    parts = []
    for task, source in tasks.items():
        n = source if isinstance(source, int) else int(source["n"])
        part = kept.filter(task=task)
        if len(part) < n:
            n_unfit = sum(row["task"] == task for row in unfit)
            raise PromptsError(
                f"prompts.{task} asks for {n} problems, but {len(part)} are left after {n_unfit} were unfit and "
                f"{len(alike.filter(task=task))} too like an evaluation item: ask for fewer"
            )
        parts.append(part.head(n) if isinstance(source, int) else part.sort("prompt_id").head(n))
    log.info("%d prompts; left out: %d unfit, %d too like an evaluation item", sum(map(len, parts)), len(unfit), len(alike))
    write_table(rows_to_table([*unfit, *alike.iter_rows(named=True)], Dropped), Dropped, dropped)
    write_table(pl.concat(parts), Prompts, output)


def _problems(
    split: str,
    by_task: Mapping[str, int | dict[str, Any]],
    operations: list[int] | None,
    seed: int,
    unfit: list[dict[str, Any]] | None = None,
) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for task, source in by_task.items():
        if isinstance(source, int):
            assert operations is not None
            rows += _drawn(split, task, source, operations, seed)
        elif unfit is None:
            rows += benchmarks.items(task, source, split)
        else:
            found, left_out = benchmarks.problems(task, source)
            rows += found
            unfit += left_out
    return rows


def _table(split: str, rows: list[dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows).with_columns(split=pl.lit(split)).select(list(Prompts.to_schema().columns))


def _drawn(split: str, task: str, count: int, operations: list[int], seed: int) -> list[dict[str, str]]:
    """Distinct problems of the micro-world: for ``train`` only those that are not `held_out`, else only those that are."""
    rng = random.Random(f"{seed}/{split}/{task}")
    texts: dict[str, str] = {}
    in_vain = 0
    while len(texts) < count:
        if in_vain > MOST_IN_VAIN:
            raise PromptsError(
                f"split {split} asks for {count} different problems of {task}, but with {operations[0]} to {operations[1]} "
                f"operations only {len(texts)} could be found: ask for fewer, or allow more operations"
            )
        problem = draw(task, rng.randint(*operations), rng)
        text = render(problem, rng)
        if held_out(text) == (split != "train") and text not in texts:
            texts[text] = str(problem.answer)
            in_vain = 0
        else:
            in_vain += 1
    return [
        {
            "prompt_id": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
            "task": task,
            "prompt": text,
            "answer": answer,
        }
        for text, answer in texts.items()
    ]
