"""Settings of findings: what was measured."""

from typing import Literal

from prefdelta.measure.settings import ArmSettings, Bootstrap, ComparedArm
from prefdelta.study.lattice import Cell
from prefdelta.study.strict import Strict


class PrimaryContrast(Strict):
    """The comparison of ``arm`` with ``versus`` in sampled accuracy on ``suite`` that an experiment is about."""

    arm: str
    versus: str
    suite: str


class ExperimentSettings(Strict):
    """Of `tabulate_experiment` and `tabulate_profile`. ``draws``: generator -> its independent samples; ``smallest_effect``: the
    smallest difference of interest (points)."""

    experiment: str
    arms: list[ComparedArm]
    draws: dict[str, list[str]]
    bootstrap: Bootstrap
    primary: PrimaryContrast | None = None
    smallest_effect: float | None = None


class FigureSettings(Strict):
    """Of `plot_profile`: ``arms`` by their names."""

    title: str
    question: str
    caveat: str
    figure: Literal["ladder", "bars", "sweep", "steps", "grid", "crossed", "profile"]
    arms: list[str]
    suites: list[str]


class ExperimentFigureSettings(FigureSettings):
    """Of `plot_experiment`: ``series`` are the lines or panels that its ``arms`` belong to; the answer is about the last of
    ``suites``."""

    series: list[str]


class ShiftedArm(ArmSettings):
    """An arm with its method's ``beta``, and which pairs it is tried on (``held_out``)."""

    beta: float | None
    held_out: str


class SharpeningSettings(Strict):
    """Of `tabulate_sharpening`. ``temperature``: at which all answer; policies answer at others, too."""

    arms: list[ShiftedArm]
    suites: list[str]
    temperature: float
    bootstrap: Bootstrap


class SuitesSettings(Strict):
    """Of `plot_capability`."""

    suites: list[str]


class GeneratorDeltasSettings(Strict):
    """Of `tabulate_generator_deltas`. ``sides``: judge -> generator -> its draws, which are pooled."""

    sides: dict[str, dict[str, list[str]]]
    bootstrap: Bootstrap


class SweptRecipe(Strict):
    """A recipe, the ``method`` whose sweep it is of, and its cells on each of several pair sets."""

    policy: str
    method: str
    recipe: str
    trainer: str
    loss: str | None
    learning_rate: float
    beta: float | None
    n_steps: int
    cells: list[list[Cell]]


class RecipesSettings(Strict):
    """Of `tabulate_recipes`: the best recipe is that on the suite ``validation``."""

    experiment: str
    validation: str
    recipes: list[SweptRecipe]
    bootstrap: Bootstrap


class RecipesFigureSettings(Strict):
    """Of `plot_recipes`: what is best on the suite ``validation`` is told of the last suite, ``answered``, too."""

    title: str
    question: str
    caveat: str
    validation: str
    answered: str
