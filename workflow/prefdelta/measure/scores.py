"""Scores of evaluation items, from predictions: what accuracies, gains and their intervals are made of."""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prefdelta.measure.intervals import Array, Interval
from prefdelta.run.errors import PrefdeltaError
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Predictions


class ScoresError(PrefdeltaError):
    """Predictions have too many answers that could not be graded; the message names the file, the share and the gate."""


@dataclass(frozen=True)
class Scores:
    """Item scores (points) of a suite, or of one of its tasks (``task`` is not None), in a fixed order of items.

    In a suite's scores the items of each task are weighted so that their plain mean is the mean over tasks: AIME's 30 problems
    count as much as GSM8K's 1,319. ``sizes`` are the numbers of items by task; ``n_ungraded`` that of answers to all items which
    could not be graded.
    """

    suite: str
    task: str | None
    decoding: str
    item_ids: tuple[str, ...]
    sizes: tuple[int, ...]
    values: Array
    n_ungraded: int

    @property
    def key(self) -> tuple[str, str | None, str]:
        return self.suite, self.task, self.decoding


_KEYS = ["suite", "decoding", "task", "item_id"]


def item_scores(files: Sequence[Path], most_ungraded: float) -> list[list[Scores]]:
    """Of each of ``files`` (`Predictions`) the `scores_at` 1 of every suite, and of each task of those that have several.

    Raises ScoresError as `item_counts`.
    """
    return scores_at([item_counts(read_table(file, Predictions), file, most_ungraded) for file in files])


def item_counts(answers: pl.DataFrame, file: Path, most_ungraded: float) -> pl.DataFrame:
    """How many ``answers`` (`Predictions` of ``file``) to each item, by suite, decoding and task, are right, graded and ungraded.

    Raises ScoresError where more than the share ``most_ungraded`` of them is ungraded.
    """
    if (share := answers["correct"].null_count() / max(len(answers), 1)) > most_ungraded:
        raise ScoresError(
            f"{share:.1%} of the answers in {file} could not be graded, above gates.ungraded {most_ungraded}: see its rows "
            "without `correct`, and the log of the job that made it"
        )
    correct = pl.col("correct")
    return answers.group_by(_KEYS).agg(right=correct.sum(), graded=correct.count(), ungraded=correct.null_count()).sort(_KEYS)


def scores_at(counts: Sequence[pl.DataFrame], k: int = 1) -> list[list[Scores]]:
    """Of each of ``counts`` (`item_counts`) the scores of every suite, and of each task of those that have several.

    An item's score is `pass_at` ``k``: for 1, the mean over its samples that are graded. An item with fewer than ``k`` graded
    samples in one of ``counts`` is left out of all: they are compared item by item.
    """
    score = 100 * pass_at(k, pl.col("graded"), pl.col("right"))
    means = [table.select(*_KEYS, "ungraded", score=pl.when(pl.col("graded") >= k).then(score)) for table in counts]
    unknown = pl.concat(table.filter(pl.col("score").is_null()).select(_KEYS) for table in means)
    return [_scores(table, unknown) for table in means]


def pass_at(k: int, n: pl.Expr, c: pl.Expr) -> pl.Expr:
    """The chance that of ``k`` samples of an item at least one is right, from ``n`` >= k samples of which ``c`` are.

    It is 1 - C(n - c, k) / C(n, k), without bias (Chen et al. 2021, arXiv 2107.03374, equation 1).
    """
    n, c = n.cast(pl.Int64), c.cast(pl.Int64)
    return 1 - functools.reduce(operator.mul, [(n - c - drawn).clip(lower_bound=0) / (n - drawn) for drawn in range(k)])


def _scores(means: pl.DataFrame, unknown: pl.DataFrame) -> list[Scores]:
    """The scores of one file, whose items have ``means``, without the ``unknown`` items."""
    found = []
    ungraded = {
        key: table["ungraded"].sum() for key, table in means.partition_by("suite", "decoding", "task", as_dict=True).items()
    }
    known = means.join(unknown, on=unknown.columns, how="anti", maintain_order="left")
    for (suite, decoding), part in known.partition_by("suite", "decoding", as_dict=True, maintain_order=True).items():
        by_task = part.partition_by("task", maintain_order=True)
        sizes = tuple(len(rows) for rows in by_task)
        weighted = [rows["score"].to_numpy() * (len(part) / len(sizes) / len(rows)) for rows in by_task]
        of_tasks = [int(number) for (where, how, _), number in ungraded.items() if (where, how) == (suite, decoding)]
        items = tuple(part["item_id"])
        found.append(Scores(str(suite), None, str(decoding), items, sizes, np.concatenate(weighted), sum(of_tasks)))
        if len(by_task) > 1:
            for rows in by_task:
                task, values = rows["task"][0], rows["score"].to_numpy()
                number = int(ungraded[suite, decoding, task])
                found.append(Scores(str(suite), task, str(decoding), tuple(rows["item_id"]), (len(rows),), values, number))
    return found


def stack(evals: Sequence[Sequence[Scores]], place: int) -> Array:
    """(n_seeds, n_items) scores at ``place`` of each seed's `item_scores`. Raises ValueError where the items differ."""
    first = evals[0][place]
    for other in evals:
        if other[place].item_ids != first.item_ids:
            raise ValueError(f"evaluations of {first.key} hold different items: evaluate them again")
    return np.stack([scores[place].values for scores in evals])


def suite_scores(sides: Sequence[Sequence[Path]], suite: str, most_ungraded: float) -> tuple[list[Array], tuple[int, ...]]:
    """(n_seeds, n_items) sampled scores of ``suite`` for each of ``sides``, which have a file for each seed, and the numbers of
    items by task. Raises ScoresError, as `item_scores`, on whose items they are."""
    files = list(dict.fromkeys(file for side in sides for file in side))
    found = dict(zip(files, item_scores(files, most_ungraded), strict=True))
    wanted = {file: [scores for scores in several if scores.key == (suite, None, "sampled")] for file, several in found.items()}
    for file, scores in wanted.items():
        if not scores:
            raise ScoresError(f"{file} has no graded answer to any item of suite {suite}")
    return [stack([wanted[file] for file in side], 0) for side in sides], wanted[files[0]][0].sizes


def clipped(interval: Interval, lowest: float) -> dict[str, float]:
    """The interval as columns, its bounds within ``lowest`` and 100 points."""
    return {
        "estimate": interval.estimate,
        "ci_low": max(interval.ci_low, lowest),
        "ci_high": min(interval.ci_high, 100.0),
    }
