"""The lattice: from a study's experiments to cells, and from names in a path to what a rule needs."""

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from prefdelta.study import paths
from prefdelta.study.config import (
    CheckpointGenerator,
    ConfigError,
    DatasetGenerator,
    Experiment,
    FileEndpoint,
    HubModel,
    MicroworldModel,
    OpenAIGenerator,
    ServedEndpoint,
    Study,
    UrlEndpoint,
    VllmEndpoint,
)
from prefdelta.study.selections import SelectionError, draw_for_seed

SIDES = ("chosen", "rejected")


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

    def cell(self, study: Study, seed: int) -> dict[str, str]:
        """The wildcards of this arm's cell for ``seed``."""
        names = {**asdict(self), "selection": draw_for_seed(self.selection, seed)}
        for side in ("chosen", "rejected"):
            draws = study.draws(names[side])
            names[side] = draws[seed % len(draws)]
        return {"study": study.study, **names, "seed": str(seed)}


def arms(study: Study, name: str) -> list[Arm]:
    """The arms of experiment ``name``, in the order of its lists."""
    experiment = study.experiments[name]
    lists = (
        experiment.policy or study.policies[:1],
        experiment.method or list(study.methods)[:1],
        experiment.judge or list(study.judges)[:1],
        experiment.chosen,
        experiment.rejected,
        experiment.selection,
    )
    found = [Arm(*names) for names in product(*lists)]
    return [arm for arm in found if arm.chosen != arm.rejected]


def cells(study: Study, name: str) -> list[dict[str, str]]:
    """The cells (wildcards) that experiment ``name`` trains; none where its figure is a profile of pairs."""
    if name not in study.trained:
        return []
    return [arm.cell(study, seed) for arm in arms(study, name) for seed in range(study.trained[name].seeds)]


def arm_name(arm: Arm) -> str:
    """An arm's unique name in a study, as its paths have it."""
    return f"{arm.policy}/{arm.method}/{arm.judge}/{arm.chosen}_vs_{arm.rejected}/{arm.selection}"


def trained_arms(study: Study) -> dict[Arm, int]:
    """Every arm that an experiment trains, with the most seeds that one asks for."""
    seeds: dict[Arm, int] = {}
    for name, experiment in study.trained.items():
        for arm in arms(study, name):
            seeds[arm] = max(seeds.get(arm, 0), experiment.seeds)
    return seeds


def judged_sides(study: Study) -> dict[str, dict[str, list[str]]]:
    """judge -> generator -> its draws: the sides of the judge's arms, for the first judge all generators.

    The reference judge rates what any other judge rates.
    """
    first, further = next(iter(study.judges)), study.further_draws
    sides = {judge: [name for name in study.generators if judge == first and name not in further] for judge in study.judges}
    for name in study.experiments:
        for arm in arms(study, name):
            sides[arm.judge] += [arm.chosen, arm.rejected]
    if study.reference_judge:
        sides[study.reference_judge] = [name for names in sides.values() for name in names]
    return {judge: {name: study.draws(name) for name in names} for judge, names in sides.items()}


def rated_generators(study: Study) -> dict[str, list[str]]:
    """judge -> the generators, further draws included, whose traces it rates."""
    return {
        judge: list(dict.fromkeys(draw for draws in sides.values() for draw in draws))
        for judge, sides in judged_sides(study).items()
    }


def controls(study: Study, name: str, arm: Arm) -> list[Arm]:
    """The arms that ``arm`` is compared with, besides the base policy. Raises ConfigError where one is not in the experiment."""
    experiment = study.experiments[name]
    everywhere = arms(study, name)
    found = []
    for words in experiment.versus:
        k = study.selection(draw_for_seed(arm.selection, 0)).k
        control = replace(arm, **{word: value.replace("{k}", str(k)) for word, value in words.items()})
        if control.chosen == control.rejected and min(len(experiment.chosen), len(experiment.rejected)) > 1:
            continue  # in a grid of chosen by rejected, the place that no arm can have
        if control not in everywhere:
            if "{k}" in words.get("selection", "") and k is None:
                continue  # a control of the same size, for an arm that has no size
            raise ConfigError(f"experiments.{name}.versus: {words} leads to an arm that the experiment does not have: {control}")
        if control != arm:
            found.append(control)
    return found


def label(experiment: Experiment, arm: Arm) -> str:
    """An arm's name within its experiment: the words in which the experiment's arms differ."""
    sides = f"{arm.chosen} over {arm.rejected}"
    varying = [getattr(arm, word) for word in ("policy", "method", "judge", "selection") if len(getattr(experiment, word)) > 1]
    if len(experiment.chosen) > 1 or len(experiment.rejected) > 1 or not varying:
        varying.append(sides)
    return ", ".join(varying)


def check_names(study: Study, names: dict[str, str]) -> None:
    """Checks wildcards against the study. Raises ConfigError with the choices, or with the selection grammar."""
    for word, name in names.items():
        if word == "selection":
            try:
                study.selection(name)
            except SelectionError as error:
                raise ConfigError(str(error)) from None
        elif word != "seed" and name not in study.choices(word):
            raise ConfigError(f"unknown {word} '{name}' in study {study.study}; choose from {', '.join(study.choices(word))}")
    if names.get("chosen") is not None and names.get("chosen") == names.get("rejected"):
        raise ConfigError(f"chosen and rejected are both '{names['chosen']}'; a second sample needs a generator of its own")


def experiment_content(study: Study, name: str) -> dict[str, Any]:
    """All that an experiment's table and figure depend on besides their input files."""
    experiment = study.experiments[name]
    rows = [
        {
            **asdict(arm),
            "arm": label(experiment, arm),
            "versus": [label(experiment, control) for control in controls(study, name, arm)],
        }
        for arm in arms(study, name)
    ]
    return {"experiment": name, "arms": rows, "n_seeds": experiment.seeds}


def pair_files(study: Study, name: str) -> list[str]:
    """The full pair set of every (judge, chosen, rejected) of an experiment."""
    sides = dict.fromkeys((arm.judge, arm.chosen, arm.rejected) for arm in arms(study, name))
    return [
        paths.PAIRS.format(study=study.study, judge=judge, chosen=chosen, rejected=rejected, selection="full")
        for judge, chosen, rejected in sides
    ]


def checked_names(study: Study, wildcards: Any) -> dict[str, str]:
    """Wildcards as a dictionary, after `check_names`."""
    names = dict(wildcards.items())
    check_names(study, names)
    return names


def checked(study: Study, wildcards: Any) -> Study:
    """The study itself, after `check_names` of ``wildcards``."""
    checked_names(study, wildcards)
    return study


def pair_inputs(study: Study, wildcards: Any) -> dict[str, str]:
    """Traces and ratings of both sides."""
    names = checked_names(study, wildcards)
    return {
        f"{side}_{kind}": pattern.format(**names, generator=names[side])
        for side in ("chosen", "rejected")
        for kind, pattern in (("traces", paths.TRACES), ("ratings", paths.RATINGS))
    }


def experiment_files(study: Study, wildcards: Any, pattern: str) -> list[str]:
    """``pattern`` (evaluation or checkpoint) of every cell of an experiment."""
    name = checked_names(study, wildcards)["experiment"]
    return [pattern.format(**cell) for cell in cells(study, name)]


def base_evals(study: Study, wildcards: Any) -> list[str]:
    """The evaluation of every untuned policy of an experiment."""
    policies = dict.fromkeys(arm.policy for arm in arms(study, wildcards.experiment))
    return [paths.EVAL_BASE.format(study=study.study, model=policy) for policy in policies]


def all_files(study: Study, pattern: str) -> list[str]:
    """``pattern`` (evaluation, checkpoint or pairs) of every cell that an experiment trains."""
    cells = [arm.cell(study, seed) for arm, seeds in trained_arms(study).items() for seed in range(seeds)]
    return list(dict.fromkeys(pattern.format(**cell) for cell in cells))


def all_references(study: Study) -> list[str]:
    """The stored references of both sides of every cell that an experiment trains with a method that uses them."""
    with_reference = {arm: seeds for arm, seeds in trained_arms(study).items() if study.methods[arm.method].has_reference}
    cells = [arm.cell(study, seed) for arm, seeds in with_reference.items() for seed in range(seeds)]
    return list(dict.fromkeys(paths.REFERENCE.format(**cell, generator=cell[side]) for cell in cells for side in SIDES))


def pair_groups(study: Study) -> list[list[dict[str, str]]]:
    """The trained arms' pair sets, of the first seed, by their two generators; those of which there are several."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for arm in trained_arms(study):
        cell = arm.cell(study, 0)
        pair_set = {word: cell[word] for word in ("study", "judge", "chosen", "rejected", "selection")}
        group = groups.setdefault((arm.chosen, arm.rejected), [])
        if pair_set not in group:
            group.append(pair_set)
    return [group for group in groups.values() if len(group) > 1]


def all_base_evals(study: Study) -> list[str]:
    """The evaluation of every untuned policy."""
    return [paths.EVAL_BASE.format(study=study.study, model=policy) for policy in study.policies]


def evaluated_models(study: Study) -> list[str]:
    """Models whose capability is tabulated: policies, and of the micro-world all that write traces. Others cost too much to be
    asked in passing."""
    return [
        name
        for name, model in study.models.items()
        if name in study.policies or (isinstance(model, MicroworldModel) and model.writes == "traces")
    ]


def generator_model(study: Study, generator: str) -> str | None:
    """The model whose checkpoint a generator's job reads; None where it needs none."""
    match study.generators[generator]:
        case CheckpointGenerator(model=name) | DatasetGenerator(tokenizer=name):
            return name
        case OpenAIGenerator(endpoint=VllmEndpoint(model=name)):
            return name
    return None


def judge_model(study: Study, judge: str) -> str | None:
    """The model whose checkpoint a judge's job serves; None where it serves none."""
    endpoint = study.judges[judge].endpoint
    return endpoint.model if isinstance(endpoint, ServedEndpoint) else None


def judge_family(study: Study, judge: str) -> str | None:
    """The family of a judge's model; None where that is none of the study's."""
    model = judge_model(study, judge)
    return study.models[model].family if model else None


def judge_labels(study: Study, judge: str) -> list[str]:
    """The file of a judge whose ratings are there already."""
    endpoint = study.judges[judge].endpoint
    return [endpoint.path] if isinstance(endpoint, FileEndpoint) else []


def predictor_files(study: Study) -> list[str]:
    """The file that gains are predicted by; none where none are."""
    return [str(paths.predictor_file(study.predictor))] if study.predictor else []


def generator_family(study: Study, generator: str) -> str | None:
    """The family of the model that wrote a generator's traces; None where that is none of the study's."""
    model = running_model(study, generator)
    return study.models[model].family if model else None


def base_files(study: Study, model: str | None) -> list[str]:
    """The manifest of ``model``; none for None."""
    return [paths.BASE.format(study=study.study, model=model)] if model else []


def backend(study: Study, generator: str) -> str:
    """The backend that a generator's job runs."""
    return study.generators[generator].backend or study.backend


def endpoint(study: Study, generator: str) -> UrlEndpoint | VllmEndpoint | None:
    """The endpoint that a generator's job asks; None where it asks none."""
    kind = study.generators[generator]
    return kind.endpoint if isinstance(kind, OpenAIGenerator) else None


def job_size(study: Study, model: str | None, small: dict[str, int]) -> dict[str, int]:
    """Resources of a job that runs ``model``: ``small`` for none and for those of the micro-world.

    Memory and time are bounds for a scheduler, ours and generous; a profile's ``set-resources`` overrides them.
    """
    shape = study.models.get(model or "")
    if not isinstance(shape, HubModel):
        return {**small, "gpu": 0}
    return {"mem_mb": 64_000 * max(1, shape.gpus), "runtime": 24 * 60, "gpu": shape.gpus}


def running_model(study: Study, generator: str) -> str | None:
    """The model that a generator's job runs; None where it only reads a data set or asks an endpoint."""
    return None if isinstance(study.generators[generator], DatasetGenerator) else generator_model(study, generator)


def evaluated_model(study: Study, wildcards: Any) -> str:
    """The model that an evaluation is of: itself, or the policy of a cell."""
    names = checked_names(study, wildcards)
    return names.get("model") or names["policy"]


def training_size(study: Study, method: str) -> dict[str, int]:
    """Resources of a training job."""
    gpus = study.methods[method].gpus
    return {"mem_mb": 96_000 * gpus, "runtime": 24 * 60, "gpu": gpus} if gpus else {"mem_mb": 4000, "runtime": 240, "gpu": 0}


def training_ratings(study: Study, wildcards: Any) -> dict[str, str]:
    """The ratings of both sides, whose coverage training asks for."""
    return {name: file for name, file in pair_inputs(study, wildcards).items() if name.endswith("_ratings")}


def training_references(study: Study, wildcards: Any) -> dict[str, str]:
    """The stored references of both sides, for methods that use them."""
    names = checked_names(study, wildcards)
    if not study.methods[names["method"]].has_reference:
        return {}
    return {f"{side}_reference": paths.REFERENCE.format(**names, generator=names[side]) for side in ("chosen", "rejected")}
