"""Plans of the shift: how far trainings have moved their policies."""

from collections.abc import Mapping

from prefdelta.evaluate.settings import ShiftSettings
from prefdelta.plan.checkpoints import base, chat, inference
from prefdelta.plan.job import Files, Job
from prefdelta.plan.problems import suites
from prefdelta.study import paths
from prefdelta.study.lattice import SIDES, Side
from prefdelta.study.study import Study
from prefdelta.train.settings import ReferenceRun


def _shift(study: Study, policy: str, max_length: int, inputs: Mapping[str, Files]) -> Job:
    settings = ShiftSettings(
        temperature=study.evaluation.temperature or 1.0,  # greedy answers have no probability of their own
        max_length=max_length,
        chat=chat(study, policy),
        dtype=inference(study, policy).dtype,
    )
    files: dict[str, Files] = {"base": base(study, policy), "suites": suites(study), **inputs}
    return Job(files, settings, ReferenceRun(batch_size=study.run.batch_size))


def measure_base(study: Study, words: Mapping[str, str]) -> Job:
    tempered = paths.EVAL_TEMPERATURES.format(**words) if study.evaluation.temperatures else []
    inputs: dict[str, Files] = {
        "manifest": paths.BASE.format(**words),
        "predictions": paths.EVAL_BASE.format(**words),
        "tempered": tempered,
        "pairs": [],
        "held_out": {},
    }
    return _shift(study, words["model"], 1, inputs)


def held_out(study: Study, chosen: str, rejected: str) -> tuple[dict[Side, str], str]:
    """The generators whose pairs a cell of ``chosen`` over ``rejected`` is tried on, and which these pairs are, in words.

    Where both sides have several draws, the next draw of each: other traces for the same prompts. Else the cell's own traces.
    """
    following: dict[Side, str] = {}
    for side, drawn in zip(SIDES, (chosen, rejected), strict=True):
        draws = study.draws(drawn.partition(".draw")[0])
        following[side] = draws[(draws.index(drawn) + 1) % len(draws)]
    if chosen in following.values() or rejected in following.values():
        return dict(zip(SIDES, (chosen, rejected), strict=True)), "not selected"
    return following, "another draw"


def measure_checkpoint(study: Study, words: Mapping[str, str]) -> Job:
    generators, _ = held_out(study, words["chosen"], words["rejected"])
    inputs: dict[str, Files] = {
        "manifest": paths.CHECKPOINT.format(**words),
        "predictions": paths.EVAL.format(**words),
        "tempered": [],
        "pairs": paths.PAIRS.format(**words),
        "held_out": {side: paths.TRACES.format(study=study.study, generator=name) for side, name in generators.items()},
    }
    return _shift(study, words["policy"], study.methods[words["method"]].max_length, inputs)
