"""Scores of evaluation items, from predictions: what accuracies, gains and their intervals are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prefdelta.measure.intervals import Array, Interval
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Predictions


@dataclass(frozen=True)
class Scores:
    """Item scores (points) of a suite, or of one of its tasks (``task`` is not None), in a fixed order of items.

    In a suite's scores the items of each task are weighted so that their plain mean is the mean over tasks: AIME's 30 problems
    count as much as GSM8K's 1,319. ``sizes`` are the numbers of items by task.
    """

    suite: str
    task: str | None
    decoding: str
    item_ids: tuple[str, ...]
    sizes: tuple[int, ...]
    values: Array

    @property
    def key(self) -> tuple[str, str | None, str]:
        return self.suite, self.task, self.decoding


def item_scores(predictions: Path) -> list[Scores]:
    """The scores of every suite, and of each task of those that have several; an item's is its mean over samples."""
    frame = read_table(predictions, Predictions)
    keys = ["suite", "decoding", "task", "item_id"]
    means = frame.group_by(keys).agg(score=100 * pl.col("correct").mean()).sort(keys)
    found = []
    for (suite, decoding), part in means.partition_by("suite", "decoding", as_dict=True, maintain_order=True).items():
        by_task = part.partition_by("task", maintain_order=True)
        sizes = tuple(len(rows) for rows in by_task)
        weighted = [rows["score"].to_numpy() * (len(part) / len(sizes) / len(rows)) for rows in by_task]
        found.append(Scores(str(suite), None, str(decoding), tuple(part["item_id"]), sizes, np.concatenate(weighted)))
        if len(by_task) > 1:
            found += [
                Scores(str(suite), rows["task"][0], str(decoding), tuple(rows["item_id"]), (len(rows),), rows["score"].to_numpy())
                for rows in by_task
            ]
    return found


def stack(evals: Sequence[Sequence[Scores]], place: int) -> Array:
    """(n_seeds, n_items) scores at ``place`` of each seed's `item_scores`. Raises ValueError where the items differ."""
    first = evals[0][place]
    for other in evals:
        if other[place].item_ids != first.item_ids:
            raise ValueError(f"evaluations of {first.key} hold different items: evaluate them again")
    return np.stack([scores[place].values for scores in evals])


def suite_scores(files: Sequence[Path], suite: str) -> tuple[Array, tuple[int, ...]]:
    """(n_seeds, n_items) sampled scores of ``suite``, a file each, and the numbers of items by task."""
    evals = [[scores for scores in item_scores(file) if scores.key == (suite, None, "sampled")] for file in files]
    return stack(evals, 0), evals[0][0].sizes


def clipped(interval: Interval, lowest: float) -> dict[str, float]:
    """The interval as columns, its bounds within ``lowest`` and 100 points."""
    return {
        "estimate": interval.estimate,
        "ci_low": max(interval.ci_low, lowest),
        "ci_high": min(interval.ci_high, 100.0),
    }
