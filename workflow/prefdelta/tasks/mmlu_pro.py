"""MMLU-Pro: TIGER-Lab/MMLU-Pro (columns question, options, answer). Up to ten options; Wang et al., arXiv 2406.01574.

Zero-shot with our wording, where the authors' own harness shows five worked examples: reasoning models are asked so.
"""

import re
from collections.abc import Sequence
from typing import Any

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import TaskError, grade_each
from prefdelta.tasks.common import ask, last_boxed

LETTERS = "ABCDEFGHIJ"
INSTRUCTION = "Please reason step by step, and put the letter of the correct option within \\boxed{}."

_BOXED = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)*\(?\s*([A-J])(?![A-Za-z0-9]|\s*(?:,|and|or|&)\s*\(?[A-J]\b)")
# The authors' two patterns (compute_accuracy.py), of which the last match counts.
_STATED = re.compile(r"answer is:?\s*\**\(?([A-J])\b|[aA]nswer:\s*\**\(?([A-J])\b")


class Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["question", "options", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The question with its lettered options; the reference is a letter. Raises TaskError where it names no option."""
        options = dict(zip(LETTERS, row["options"], strict=False))
        if row["answer"] not in options or len(row["options"]) > len(LETTERS):
            raise TaskError(f"{self.name}: the answer {row['answer']!r} is none of the options of {row['question']!r}")
        lines = [row["question"].strip(), "", *(f"{letter}. {option.strip()}" for letter, option in options.items())]
        return ask("\n".join(lines), INSTRUCTION), row["answer"]

    def extract(self, response: str) -> str | None:
        r"""The letter at the start of the last box, as in ``\boxed{C}``, ``\boxed{\text{(C)}}`` or ``\boxed{C. Four}``; without a
        box that of the last "answer is (C)" or "Answer: C"; else None."""
        if (boxed := last_boxed(response)) is not None:
            found = _BOXED.match(boxed)
            return found[1] if found else None
        stated = [first or second for first, second in _STATED.findall(response)]
        return stated[-1] if stated else None

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether it is the same letter."""
        return answer == reference

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[tuple[str | None, bool]]:
        """One by one, in the main thread."""
        return grade_each(self, responses, references)
