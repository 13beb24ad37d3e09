"""What is looked at in each step of a training: a number that is none ends the run there."""

import logging
import math
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object

from prefdelta.checkpoints.load import not_finite
from prefdelta.run.errors import PrefdeltaError

log = logging.getLogger(__name__)

NAME = "name"  # the column with the id of an example
TOLD = 8  # ids in a message; all are in the log


class TrainingError(PrefdeltaError):
    """Training can't start or has gone wrong; the message says where."""


class Watched:
    """Before one of TRL's trainers: knows the ids of each step's examples, and raises TrainingError at the step that fails.

    A step fails where its loss, the norm of its gradient, another number that it logs, or a weight after it is not finite.
    Nothing is saved after such a step. All processes see the same numbers, so all raise.
    """

    _names: list[str]

    def watch(self) -> None:
        """To be called once the trainer is made."""
        collate: Callable[[list[dict[str, Any]]], Any] = self.data_collator  # type: ignore[has-type]

        def named(examples: list[dict[str, Any]]) -> Any:
            batch = collate(examples)
            batch[NAME] = [example[NAME] for example in examples]
            return batch

        self.data_collator = named

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns: list[str]
        if NAME not in self._signature_columns:
            self._signature_columns.append(NAME)

    def get_batch_samples(self, *arguments: Any) -> Any:
        """The batches of a step, from which the ids are taken."""
        batches, n_items = super().get_batch_samples(*arguments)  # type: ignore[misc]
        self._names = [name for batch in batches for name in batch.pop(NAME)]
        return batches, n_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Looks at the step whose numbers are logged, before anything of it is saved."""
        super().log(logs, start_time)  # type: ignore[misc]
        if "loss" not in logs:
            return
        step = self.state.global_step  # type: ignore[attr-defined]
        wrong = [f"{name} is {value}" for name, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}  # type: ignore[attr-defined]
        if weight := not_finite(trained):
            wrong.append(f"the weight {weight} is not finite after it")
        if wrong:
            names = gather_object(self._names)
            log.error("the examples of step %d: %s", step, ", ".join(names))
            more = f" and {len(names) - TOLD} more (see the log)" if len(names) > TOLD else ""
            raise TrainingError(
                f"step {step}, at a learning rate of {logs['learning_rate']:g}, went wrong: {', '.join(wrong)}. Its examples: "
                f"{', '.join(names[:TOLD])}{more}. Lower the method's `learning_rate`, give it `warmup_steps`, or look for what "
                "is odd in these texts. Nothing of this step was saved"
            )
