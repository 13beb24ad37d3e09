"""Settings that findings share: arms, what they are compared with, and how intervals are made."""

from dataclasses import fields

from prefdelta.study.lattice import Arm, Cell
from prefdelta.study.recipe import Gates
from prefdelta.study.strict import Strict


class Bootstrap(Strict):
    """How intervals are made: ``n_resamples`` from ``seed``, where no more than a share of answers is ``ungraded``."""

    n_resamples: int
    seed: int
    ungraded: float = Gates().ungraded


class ArmSettings(Strict):
    """An arm's six words, and its cells: one for each seed."""

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str
    cells: list[Cell] = []

    @property
    def words(self) -> dict[str, str]:
        return {word.name: getattr(self, word.name) for word in fields(Arm)}


class ComparedArm(ArmSettings):
    """An arm by its name within an experiment (``arm``), and the names of its controls (``versus``), each with the family of
    comparisons that it belongs to: a number for each control that the experiment names."""

    arm: str
    versus: dict[str, int]


class SuiteSettings(Strict):
    """Of figures that show one study's gains on one suite."""

    study: str
    suite: str
