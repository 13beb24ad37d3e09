"""GSM8K: openai/gsm8k, config main (columns question, answer). Cobbe et al., arXiv 2110.14168."""

from typing import Any

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import TaskError
from prefdelta.tasks.common import MathTask, ask


class Task(MathTask):
    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["question", "answer"], ["question", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The reference is the number after ``####``, without thousands separators. Raises TaskError where there is none."""
        _, found, number = row["answer"].rpartition("####")
        if not found:
            raise TaskError(f"{self.name}: an answer has no '####': {row['answer'][-80:]!r}")
        return ask(row["question"]), number.strip().replace(",", "")
