"""Settings of the stages that train, and compute what training compares with."""

from pathlib import Path
from typing import Literal

from prefdelta.study.lattice import Cell, Side
from prefdelta.study.models import Chat
from prefdelta.study.recipe import Gates, Recipe
from prefdelta.study.run import TrainingRun
from prefdelta.study.strict import Strict


class ReferenceSettings(Strict):
    """Of `compute_reference`. ``max_length``: tokens of prompt and completion together; ``arithmetic``: `Recipe.arithmetic`."""

    max_length: int
    arithmetic: Literal["float32", "bf16", "auto", "auto-bf16"]
    chat: Chat


class ReferenceRun(Strict):
    """``batch_size``: sequences at a time."""

    batch_size: int


class PolicySettings(Strict):
    """Of `train_policy`. ``unit``: `Recipe.unit`, since what a pass leaves out, and KTO's KL term, depend on it."""

    study: str
    recipe: Recipe
    n_steps: int
    unit: int
    cell: Cell
    chat: Chat
    seed: int


class PolicyRun(Strict):
    """How training runs, and the gates: whether it starts, not what comes out."""

    training: TrainingRun
    gates: Gates


class Training(Strict):
    """What each process of a training gets, as a file. ``base`` is the checkpoint's folder."""

    pairs: Path
    base: Path
    references: dict[Side, Path]
    settings: PolicySettings
    run: TrainingRun
    threads: int

    @property
    def per_device(self) -> int:
        """Examples in a forward pass of one process."""
        return self.settings.recipe.per_device(self.run)
