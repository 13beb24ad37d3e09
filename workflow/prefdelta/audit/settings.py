"""Settings of audits: can the judge, and the comparisons, be trusted?"""

from prefdelta.measure.settings import Bootstrap, ComparedArm
from prefdelta.study.lattice import PairSet
from prefdelta.study.strict import Strict


class AuditedJudge(Strict):
    """A judge, its generators (name -> draws, which are pooled) and the family of its model.

    ``choices_per_request`` is None for one that is not asked, and for one whose requests depend on how many steps a trace has.
    """

    judge: str
    generators: dict[str, list[str]]
    family: str | None
    choices_per_request: int | None
    separate_dimensions: bool


class JudgeAuditSettings(Strict):
    """Of `tabulate_judge_audit`. ``families``: generator -> family of its model."""

    judges: list[AuditedJudge]
    families: dict[str, str | None]
    reference_judge: str | None
    bootstrap: Bootstrap


class ReferenceJudgeSettings(Strict):
    """Of `plot_judge_audit`: the judge that others are measured by."""

    reference_judge: str | None


class CorrectedPairs(Strict):
    """The words of trained arms that share pairs, and the pair sets of all their cells."""

    judge: str
    chosen: str
    rejected: str
    selection: str
    pair_sets: list[PairSet]


class DeltaCorrectionSettings(Strict):
    """Of `tabulate_delta_correction`. ``seed``: that of random selections."""

    groups: list[CorrectedPairs]
    seed: int
    reference_judge: str | None
    bootstrap: Bootstrap


class BalancedArm(ComparedArm):
    """An arm with the length limit and arithmetic of stored references to its traces under its policy, if there are any."""

    references: tuple[int, str] | None = None


class BalancedExperiment(Strict):
    """An experiment whose arms are compared."""

    experiment: str
    arms: list[BalancedArm]


class BalanceSettings(Strict):
    """Of `tabulate_balance`."""

    experiments: list[BalancedExperiment]
