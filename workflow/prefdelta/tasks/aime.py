"""AIME: AI-MO/aimo-validation-aime, math-ai/aime25, Maxwell-Jia/AIME_2024 or alike; answers are integers from 0 to 999.

``columns`` of the source names the columns where they are not ``problem`` and ``answer``: {problem: Problem, answer: Answer}.
"""

from typing import Any

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks.common import MathTask, ask, integer


class Task(MathTask):
    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``, with its columns renamed to ``problem`` and ``answer``. Raises DatasetError."""
        names = {"problem": "problem", "answer": "answer"} | (source.columns or {})
        rows = load_rows(source, names.values(), names.values())
        return [{"problem": row[names["problem"]], "answer": row[names["answer"]]} for row in rows]

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The reference is an integer without leading zeros."""
        return ask(row["problem"]), integer(self.name, row["answer"])
