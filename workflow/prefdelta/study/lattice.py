"""The lattice: from a study's experiments to arms and cells."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Literal

from prefdelta.run.errors import ConfigError
from prefdelta.study.checks import nearest
from prefdelta.study.experiments import Experiment
from prefdelta.study.selections import SelectionError, draw_for_seed, without_size
from prefdelta.study.study import Study

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")


@dataclass(frozen=True)
class PairSet:
    """A selection of the pairs of two generators, by one judge's ratings."""

    judge: str
    chosen: str
    rejected: str
    selection: str


@dataclass(frozen=True)
class Cell:
    """One point of the lattice: a checkpoint, and its evaluation."""

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str
    seed: int

    @property
    def pairs(self) -> PairSet:
        return PairSet(self.judge, self.chosen, self.rejected, self.selection)


@dataclass(frozen=True)
class Arm:
    """A point of the lattice without its seed.

    ``random{k}`` as selection means another draw for every seed, and so does a generator that has several draws: seeds then
    differ in traces, ratings and pairs, not only in training.
    """

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str

    def cell(self, study: Study, seed: int) -> Cell:
        """This arm's cell for ``seed``."""
        chosen, rejected = (draws[seed % len(draws)] for draws in map(study.draws, (self.chosen, self.rejected)))
        drawn = replace(self, chosen=chosen, rejected=rejected, selection=draw_for_seed(self.selection, seed))
        return Cell(**asdict(drawn), seed=seed)

    def cells(self, study: Study, n_seeds: int) -> list[Cell]:
        return [self.cell(study, seed) for seed in range(n_seeds)]


def arms(study: Study, name: str) -> list[Arm]:
    """The arms of experiment ``name``, in the order of its lists."""
    experiment = study.experiments[name]
    lists = (
        experiment.policy or study.policies[:1],
        experiment.method or list(study.methods)[:1],
        experiment.judge or list(study.judges)[:1],
    )
    return [
        Arm(*names, *sides, selection)
        for names in product(*lists)
        for sides in experiment.sides
        for selection in experiment.selection
    ]


def trained_arms(study: Study, experiments: Iterable[str] | None = None) -> dict[Arm, int]:
    """Every arm that one of the ``experiments`` (default: all) trains, with the most seeds that one asks for."""
    seeds: dict[Arm, int] = {}
    for name, experiment in study.trained.items():
        if experiments is not None and name not in experiments:
            continue
        for arm in arms(study, name):
            seeds[arm] = max(seeds.get(arm, 0), experiment.seeds)
    return seeds


def trained_cells(study: Study) -> list[Cell]:
    """Every cell that an experiment trains, once."""
    return list(dict.fromkeys(cell for arm, seeds in trained_arms(study).items() for cell in arm.cells(study, seeds)))


def judged_sides(study: Study) -> dict[str, dict[str, list[str]]]:
    """judge -> generator -> its draws: the sides of the judge's arms, for the first judge all generators.

    The reference judge rates what any other judge rates. A judge that no arm uses is left out.
    """
    first, further = next(iter(study.judges)), study.further_draws
    sides = {judge: [name for name in study.generators if judge == first and name not in further] for judge in study.judges}
    for name in study.experiments:
        for arm in arms(study, name):
            sides[arm.judge] += [arm.chosen, arm.rejected]
    if study.reference_judge:
        sides[study.reference_judge] = [name for names in sides.values() for name in names]
    return {judge: {name: study.draws(name) for name in names} for judge, names in sides.items() if names}


def rated_generators(study: Study) -> dict[str, list[str]]:
    """judge -> the generators, further draws included, whose traces it rates."""
    return {
        judge: list(dict.fromkeys(draw for draws in sides.values() for draw in draws))
        for judge, sides in judged_sides(study).items()
    }


def controls(study: Study, name: str, arm: Arm) -> dict[Arm, int]:
    """The arms that ``arm`` is compared with, besides the base policy, each with the place in ``versus`` of the control that it
    is. Raises ConfigError where one is not in the experiment."""
    experiment = study.experiments[name]
    everywhere = arms(study, name)
    found: dict[Arm, int] = {}
    for place, words in enumerate(experiment.versus):
        k = study.selection(draw_for_seed(arm.selection, 0), arm.judge).k
        control = replace(arm, **{word: value.replace("{k}", str(k)) for word, value in words.items()})
        if control.chosen == control.rejected and min(len(experiment.chosen), len(experiment.rejected)) > 1:
            continue  # in a grid of chosen by rejected, the place that no arm can have
        if control not in everywhere:
            if "{k}" in words.get("selection", "") and k is None:
                continue  # a control of the same size, for an arm that has no size
            raise ConfigError(f"experiments.{name}.versus: {words} leads to an arm that the experiment does not have: {control}")
        if control != arm:
            found.setdefault(control, place)
    return found


def check_primary(study: Study, name: str) -> None:
    """Raises ConfigError where the primary contrast of experiment ``name`` is none of its comparisons."""
    experiment = study.experiments[name]
    if experiment.primary is None:
        return
    wanted = experiment.primary.arm, experiment.primary.versus
    found = [
        (label(experiment, arm), versus)
        for arm in arms(study, name)
        for versus in ("base", *(label(experiment, control) for control in controls(study, name, arm)))
    ]
    if wanted not in found:
        known = "; ".join(f"{{arm: '{arm}', versus: '{versus}'}}" for arm, versus in found)
        raise ConfigError(
            f"experiments.{name}.primary: no such comparison: '{wanted[0]}' versus '{wanted[1]}'; choose from {known}"
        )


def words_apart(experiment: Experiment, arm: Arm) -> list[str]:
    """The words, but for the sides, in which the experiment's arms differ."""
    return [getattr(arm, word) for word in ("policy", "method", "judge", "selection") if len(getattr(experiment, word)) > 1]


def label(experiment: Experiment, arm: Arm) -> str:
    """An arm's name within its experiment: the words in which the experiment's arms differ."""
    sides = f"{arm.chosen} over {arm.rejected}"
    varying = words_apart(experiment, arm)
    if len(experiment.sides) > 1 or not varying:
        varying.append(sides)
    return ", ".join(varying)


def series(study: Study, name: str) -> list[str]:
    """For each of the `arms` of experiment ``name``, what it belongs to in a figure with an axis: a line, or a panel.

    These are the words in which the arms differ, without what is on the axis: sizes of selections in a sweep, steps of methods
    (the first of those that differ in nothing else stands for all), generators in a ladder or grid.
    """
    experiment, found = study.experiments[name], []
    for arm in arms(study, name):
        words = asdict(arm) | {"sides": f"{arm.chosen} over {arm.rejected}"}
        match experiment.figure:
            case "sweep":
                words["selection"] = without_size(arm.selection)
            case "steps":
                words["method"] = next(other for other in study.methods if _differ_in_steps(study, other, arm.method))
            case "ladder" | "grid":
                words["sides"] = ""
        found.append({word: words[word] for word in ("policy", "method", "judge", "sides", "selection")})
    varying = [word for word in found[0] if len({words[word] for words in found}) > 1]
    if not varying and experiment.figure in ("sweep", "steps"):
        varying = ["selection"]
    return [", ".join(words[word] for word in varying) for words in found]


def _differ_in_steps(study: Study, *methods: str) -> bool:
    """Whether ``methods`` have the same recipe but for their steps."""
    one, other = (study.methods[name].model_dump(exclude={"steps", "epochs"}) for name in methods)
    return one == other


def check_names(study: Study, names: Mapping[str, str]) -> None:
    """Checks the words of a path against the study. Raises ConfigError with the choices, or with the selection grammar."""
    for word, name in names.items():
        if word not in ("selection", "seed", "length", "arithmetic") and name not in (choices := study.choices(word)):
            known = f"choose from {', '.join(choices)}{nearest(name, choices)}"
            raise ConfigError(f"unknown {word} '{name}' in study {study.study}; {known}")
    if "selection" in names:
        try:
            study.selection(names["selection"], names["judge"])
        except SelectionError as error:
            raise ConfigError(str(error)) from None
    if names.get("chosen") is not None and names.get("chosen") == names.get("rejected"):
        raise ConfigError(f"chosen and rejected are both '{names['chosen']}'; a second sample needs a generator of its own")
