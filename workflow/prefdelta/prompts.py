"""Prompts: the problems of each split, disjoint between training and evaluation by construction."""

import hashlib
import random
from pathlib import Path

import polars as pl

from prefdelta.errors import PrefdeltaError
from prefdelta.microworld.problems import draw, render
from prefdelta.tables import Prompts, write_table

EVALUATION_SHARE = 0.25
MOST_IN_VAIN = 10_000  # draws in a row without a new problem


class PromptsError(PrefdeltaError):
    """There are fewer different problems than a split asks for."""


def held_out(text: str) -> bool:
    """Whether a problem's text belongs to evaluation: decided by its hash, so no split needs to know another."""
    return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] < 256 * EVALUATION_SHARE


def make_prompts(output: Path | str, *, split: str, tasks: dict[str, int], operations: list[int], seed: int) -> None:
    """Writes the `Prompts` table of ``split``: distinct problems, ``tasks`` of each domain, from fewest to most operations.

    ``train`` takes only problems that are not `held_out`; every other split takes only those that are.
    """
    rows = []
    for task, count in tasks.items():
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
        rows += [
            {
                "prompt_id": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
                "split": split,
                "task": task,
                "prompt": text,
                "answer": answer,
            }
            for text, answer in texts.items()
        ]
    write_table(pl.DataFrame(rows), Prompts, output)
