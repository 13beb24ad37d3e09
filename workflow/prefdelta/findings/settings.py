"""Settings of findings: what was measured."""

from typing import Literal

from prefdelta.measure.settings import Bootstrap, ComparedArm
from prefdelta.study.strict import Strict


class ExperimentSettings(Strict):
    """Of `tabulate_experiment` and `tabulate_profile`. ``draws``: generator -> its independent samples."""

    experiment: str
    arms: list[ComparedArm]
    draws: dict[str, list[str]]
    bootstrap: Bootstrap


class FigureSettings(Strict):
    """Of `plot_experiment` and `plot_profile`: ``arms`` by their names; the answer is about the last of ``suites``."""

    title: str
    question: str
    caveat: str
    figure: Literal["ladder", "bars", "sweep", "grid", "crossed", "profile"]
    arms: list[str]
    suites: list[str]


class SuitesSettings(Strict):
    """Of `plot_capability`."""

    suites: list[str]


class GeneratorDeltasSettings(Strict):
    """Of `tabulate_generator_deltas`. ``sides``: judge -> generator -> its draws, which are pooled."""

    sides: dict[str, dict[str, list[str]]]
    bootstrap: Bootstrap
