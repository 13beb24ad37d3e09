"""Settings of answers: what is said across experiments."""

from typing import Literal

from prefdelta.measure.settings import ArmSettings, Bootstrap, ComparedArm
from prefdelta.study.strict import Strict


class FitSettings(Strict):
    """A regression of gains: its name (``fit``), its kind, its arms, which ``among`` tells from others, and whether the trend is
    the experiment's ``primary`` contrast."""

    fit: str
    among: str | None = None
    primary: bool = False
    kind: Literal["trend", "quality", "dimensions"]
    arms: list[ArmSettings]


class RegressionsSettings(Strict):
    """Of `tabulate_regressions`. ``models``: generator -> its model, where it is one of the study's; ``ungraded``: the most
    answers (a share) of an evaluation that may be."""

    fits: list[FitSettings]
    models: dict[str, str]
    suite: str
    ungraded: float


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
    """Of `tabulate_claims`. ``models``: generator -> its model, where it is one of the study's. ``original``: the study whose
    claims are asked again, if any.
    """

    questions: list[Question]
    suites: list[str]
    models: dict[str, str]
    reference_judge: str | None
    original: str


class ReplicationSettings(Strict):
    """Of `tabulate_replication` and `plot_replication`: on which suite, and what the other study's folder is called."""

    study: str
    suite: str
    original: str


class AnswersSettings(Strict):
    """Of `render_answers`. ``seeds``: what they vary; ``figures``: question -> names of the figures that show it."""

    study: str
    suite: str
    seeds: str
    smallest_effect: float | None
    figures: dict[str, list[str]]
