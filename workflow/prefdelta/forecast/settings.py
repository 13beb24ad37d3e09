"""Settings of what is known, or predicted, of arms before they are trained."""

from typing import Literal

from prefdelta.measure.settings import ArmSettings, Bootstrap
from prefdelta.study.lattice import PairSet, Side
from prefdelta.study.strict import Strict
from prefdelta.study.study import Cost


class PlannedArm(ArmSettings):
    """An arm with what its recipe says of its training.

    ``reads``: the sides that training reads. ``lengths``: (length limit, arithmetic) of stored references of its policy that know
    how long its traces are for the policy; None where there are none.
    """

    experiments: list[str]
    trainer: Literal["dpo", "kto", "sft"]
    batch_size: int
    n_examples: int
    unit: int
    max_length: int
    n_steps: int
    reads: list[Side]
    lengths: tuple[int, str] | None


class WhatIfSettings(Strict):
    """Of `tabulate_whatif`."""

    suite: str
    arms: list[PlannedArm]
    cost: Cost | None


class WhatIfFigureSettings(Strict):
    """Of `plot_whatif`. ``shipped``: whether the predictor is the one that comes with the package.

    ``identical_pairs`` and ``truncated``: the gates that the caption names arms by.
    """

    study: str
    suite: str
    shipped: bool
    identical_pairs: float
    truncated: float


class OverlapSettings(Strict):
    """Of `tabulate_overlap`: pair sets by their two generators."""

    groups: list[list[PairSet]]


class PredictionSettings(Strict):
    """Of `tabulate_prediction`. ``models``: generator -> its model, where it is one of the study's."""

    study: str
    suite: str
    arms: list[ArmSettings]
    models: dict[str, str]
    bootstrap: Bootstrap
