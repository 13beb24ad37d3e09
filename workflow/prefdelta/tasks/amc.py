"""AMC: AI-MO/aimo-validation-amc (columns problem, answer as a float). AMC 12 of 2022 and 2023, reworded to integer answers."""

from typing import Any

from prefdelta.tasks.common import MathTask, ask, integer


class Task(MathTask):
    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The reference is an integer: 33 where the file says 33.0."""
        return ask(row["problem"]), integer(self.name, row["answer"])
