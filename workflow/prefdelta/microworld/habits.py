"""Habits: misconceptions that the authors of a world share. Where most hold one, the likeliest answer is wrong."""

import random
from dataclasses import dataclass

from prefdelta.microworld.problems import CONTEXTS
from prefdelta.study.models import World


@dataclass(frozen=True)
class Habit:
    """A fault of ``dimension`` that is made wherever a problem has ``operator`` with ``operand``; ``change`` says which one."""

    dimension: str
    operator: str
    operand: int
    change: int

    def way(self, n: int) -> int:
        """Which of ``n`` ways to get it wrong."""
        return self.change % n


def habits(world: World) -> list[Habit]:
    """The habits of ``world``, each in an operation of its own: decided by its seed alone."""
    rng = random.Random(f"habits of world {world.seed}")
    dimensions = [dimension for dimension, n in world.habits.items() for _ in range(n)]
    drawn = zip(dimensions, rng.sample(CONTEXTS, len(dimensions)), strict=True)
    return [Habit(dimension, operator, operand, rng.randrange(2**16)) for dimension, (operator, operand) in drawn]
