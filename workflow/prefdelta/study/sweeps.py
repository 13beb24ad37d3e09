"""Section `sweeps`: grids of a method's recipe, so that methods can be compared at their best."""

from itertools import product

from pydantic import Field, PositiveFloat

from prefdelta.study.recipe import Recipe
from prefdelta.study.strict import Count, Strict

AXES = {"learning_rate": "lr", "beta": "b", "steps": "s"}  # as they stand in a recipe's name


class Sweep(Strict):
    """A method at every combination of these values: each is a method of its own, and in an experiment's `method` the sweep's
    name stands for all of them. In its name are the values that differ from the method's own, as in `dpo.lr1e-4.s50`."""

    method: str = Field(description="one of `methods`, whose other settings all have")
    learning_rate: list[PositiveFloat] = Field(default=[], description="default: the method's own")
    beta: list[PositiveFloat] = Field(default=[], description="default: the method's own")
    steps: list[Count] = Field(default=[], description="default: the method's own; else in place of its `epochs`")

    def recipes(self, method: Recipe) -> dict[str, Recipe]:
        """The recipes by their names; ``method`` is the one that is swept. Raises pydantic's ValidationError."""
        own = method.model_dump()
        found = {}
        for values in product(*(getattr(self, axis) or [own[axis]] for axis in AXES)):
            point = dict(zip(AXES, values, strict=True))
            parts = [f".{short}{_written(point[axis])}" for axis, short in AXES.items() if point[axis] != own[axis]]
            changed = own | point | ({"epochs": None} if self.steps else {})
            found["".join([self.method, *parts])] = Recipe.model_validate(changed)
        return found


def _written(value: float) -> str:
    """A number as part of a name: 0.0002 is 2e-4."""
    if value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
