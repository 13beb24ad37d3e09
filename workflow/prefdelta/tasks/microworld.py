"""The micro-world's three domains. Their problems are drawn by `prompts`, not loaded."""

from collections.abc import Sequence
from typing import Any

from prefdelta.microworld.problems import final_answer
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import Grade, TaskError, grade_each


class Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """Raises TaskError: there is nothing to load."""
        raise TaskError(f"{self.name} is a domain of the micro-world, whose problems are drawn: it needs no source ({source})")

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """A problem is its own prompt."""
        return row["prompt"], row["answer"]

    def extract(self, response: str) -> str | None:
        """The digits of the last ``#digits`` statement."""
        return final_answer(response)

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether it is the same number."""
        return answer == reference

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """One by one, in the main thread."""
        return grade_each(self, responses, references)
