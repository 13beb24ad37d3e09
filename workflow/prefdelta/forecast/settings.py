"""Settings of what is known, or predicted, of arms before they are trained."""

from typing import Literal

from prefdelta.measure.settings import ArmSettings, Bootstrap
from prefdelta.study.lattice import PairSet, Side
from prefdelta.study.run import Prices
from prefdelta.study.strict import Strict
from prefdelta.study.study import Cost

STEP = 25  # tokens of a trace's step at least, by which steps are counted before there are any: a short line


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


class Asked(Strict):
    """What a generator or a judge (``name``) asks of an endpoint for each prompt.

    ``characters`` are sent with each request besides the prompt, and a trace of ``trace_tokens``.
    """

    name: str
    generator: str
    model: str
    requests_per_prompt: int
    characters: int
    trace_tokens: int
    max_tokens: int
    prices: Prices | None
    cap: float | None


class RequestsSettings(Strict):
    """Of `tabulate_requests`."""

    asked: list[Asked]


class WhatIfFigureSettings(Strict):
    """Of `plot_whatif`. ``identical_pairs`` and ``truncated``: the gates that the caption names arms by."""

    study: str
    suite: str
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
