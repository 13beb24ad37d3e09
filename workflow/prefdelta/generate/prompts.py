"""Prompts: the problems of each split; no training prompt is an evaluation item, or too like one."""

import hashlib
import logging
import random
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta import tasks as benchmarks
from prefdelta.data.contamination import decontaminate
from prefdelta.generate.settings import ItemsSettings, PromptsSettings
from prefdelta.microworld.problems import held_out, random_problem, render
from prefdelta.run.errors import PrefdeltaError
from prefdelta.tables.io import read_table, rows_to_table, write_table
from prefdelta.tables.stages import Dropped, Prompts

log = logging.getLogger(__name__)

MOST_IN_VAIN = 10_000  # draws in a row without a new problem


class PromptsError(PrefdeltaError):
    """There are fewer different problems than a split asks for."""


def make_items(data: list[Path], prompts: Path, *, settings: ItemsSettings) -> None:
    """Writes the `Prompts` table of a suite: the evaluation items of its tasks. ``data``: local files that settings name."""
    rows: list[dict[str, str]] = []
    for task, source in settings.tasks.items():
        if isinstance(source, int):
            rows += _drawn(settings.split, task, source, settings.operations, settings.seed)
        else:
            rows += benchmarks.items(task, source, settings.split)
    write_table(_table(settings.split, rows), Prompts, prompts)


def make_prompts(suites: list[Path], data: list[Path], prompts: Path, dropped: Path, *, settings: PromptsSettings) -> None:
    """Writes the training `Prompts`, and the `Dropped` ones that were too like an item of ``suites`` (or not fit, by their task).

    Of a data set the first n that are left are taken, in the order of their ids, which are hashes; all where fewer are left.
    ``data``: local files that settings name. Raises PromptsError where none is left.
    """
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    parts: list[pl.DataFrame] = []
    left_out: list[dict[str, Any]] = []
    for task, source in settings.tasks.items():
        if isinstance(source, int):  # told apart by `held_out`: of the micro-world's few words any two stories share runs
            parts.append(_table("train", _drawn("train", task, source, settings.operations, settings.seed)))
            continue
        fit, unfit = benchmarks.problems(task, source)
        kept, alike = decontaminate(_table("train", fit), items, n=settings.ngram)
        left = f"{len(unfit)} were unfit and {len(alike)} too like an evaluation item"
        if kept.is_empty():
            raise PromptsError(f"prompts.{task}: no problem of {source.repo} is left: {left}")
        parts.append(kept.sort("prompt_id").head(source.n))
        left_out += [*unfit, *alike.iter_rows(named=True)]
        log.info("%s: %d problems of at most %d that are asked for; %s", task, len(parts[-1]), source.n, left)
    write_table(rows_to_table(left_out, Dropped), Dropped, dropped)
    write_table(pl.concat(parts), Prompts, prompts)


def _table(split: str, rows: list[dict[str, str]]) -> pl.DataFrame:
    return rows_to_table([{**row, "split": split} for row in rows], Prompts)


def _drawn(split: str, task: str, count: int, operations: tuple[int, int] | None, seed: int) -> list[dict[str, str]]:
    """Distinct problems of the micro-world: for ``train`` only those that are not `held_out`, else only those that are."""
    assert operations is not None  # the configuration has seen to it
    rng = random.Random(f"{seed}/{split}/{task}")
    texts: dict[str, str] = {}
    in_vain = 0
    while len(texts) < count:
        if in_vain > MOST_IN_VAIN:
            raise PromptsError(
                f"split {split} asks for {count} different problems of {task}, but with {operations[0]} to {operations[1]} "
                f"operations only {len(texts)} could be found: ask for fewer, or allow more operations"
            )
        problem = random_problem(task, rng.randint(*operations), rng)
        text = render(problem, rng)
        if held_out(text) == (split != "train") and text not in texts:
            texts[text] = problem.answer
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
