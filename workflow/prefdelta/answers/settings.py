"""Settings of answers: what is said across experiments."""

from typing import Literal

from prefdelta.measure.settings import ArmSettings, Bootstrap, ComparedArm
from prefdelta.study.strict import Strict


class FitSettings(Strict):
    """A regression of gains: its name (``fit``), its kind and its arms."""

    fit: str
    kind: Literal["trend", "quality", "dimensions"]
    arms: list[ArmSettings]


class RegressionsSettings(Strict):
    """Of `tabulate_regressions`."""

    fits: list[FitSettings]
    suite: str
    bootstrap: Bootstrap


class TwoDeltasSettings(Strict):
    """Of `tabulate_two_deltas`. ``arms``: those of each crossed experiment."""

    arms: dict[str, list[ComparedArm]]
    suite: str
    bootstrap: Bootstrap


class Question(Strict):
    """An experiment with what it asks and can't say."""

    experiment: str
    question: str
    caveat: str


class ClaimsSettings(Strict):
    """Of `tabulate_claims`. ``models``: generator -> its model, where it is one of the study's."""

    questions: list[Question]
    suites: list[str]
    models: dict[str, str]
    reference_judge: str | None


class AnswersSettings(Strict):
    """Of `render_answers`. ``figures``: question -> names of the figures that show it."""

    study: str
    suite: str
    figures: dict[str, list[str]]
