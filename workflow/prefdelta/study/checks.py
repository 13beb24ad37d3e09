"""Checks across the sections of a study: names that must exist, and what must fit together. Each gives messages."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prefdelta.study.endpoints import ServedEndpoint, TransformersEndpoint, VllmEndpoint
from prefdelta.study.experiments import RESERVED
from prefdelta.study.generators import CheckpointGenerator, DatasetGenerator, OpenAIGenerator
from prefdelta.study.models import HubModel, MicroworldModel
from prefdelta.study.paths import PREDICTOR
from prefdelta.study.run import RequestsRun, TrainingRun
from prefdelta.study.selections import SelectionError, draw_for_seed
from prefdelta.study.sources import BENCHMARKS, CORPORA, DOMAINS, BenchmarkSource

if TYPE_CHECKING:
    from prefdelta.study.study import Study


def nearest(name: str, choices: Iterable[str]) -> str:
    """Words that name the choice that is most like ``name``, if there is one."""
    found = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _named(key: str, values: Iterable[str], choices: Iterable[str]) -> Iterator[str]:
    choices, values = list(choices), list(values)
    for value in values:
        if value not in choices:
            there = f"choose from {', '.join(choices)}" if choices else "there are none here"
            yield f"{key}: '{value}' is unknown; {there}{nearest(value, choices)}"
    for value in sorted({v for v in values if values.count(v) > 1}):
        yield f"{key}: '{value}' is named twice"


def _own_generators(study: "Study") -> dict[str, CheckpointGenerator | OpenAIGenerator | DatasetGenerator]:
    return {name: generator for name, generator in study.generators.items() if name not in study.further_draws}


def models_exist(study: "Study") -> Iterator[str]:
    """Whoever names a model, or an author, names one of the study's."""
    for name, model in study.models.items():
        if isinstance(model, MicroworldModel):
            yield from _named(f"models.{name}.authors", model.authors, study.authors)
    for name, generator in _own_generators(study).items():
        match generator:
            case CheckpointGenerator():
                yield from _named(f"generators.{name}.model", [generator.model], study.models)
            case DatasetGenerator():
                yield from _named(f"generators.{name}.tokenizer", [generator.tokenizer], study.models)
            case OpenAIGenerator(endpoint=VllmEndpoint(model=served)):
                yield from _named(f"generators.{name}.endpoint.model", [served], study.models)
        if "_vs_" in name:
            yield f"generators.{name}: a name can't contain '_vs_', which separates the sides in paths"
    for name, judge in study.judges.items():
        if isinstance(judge.endpoint, ServedEndpoint):
            yield from _named(f"judges.{name}.endpoint.model", [judge.endpoint.model], study.models)
    yield from _named("reference_judge", [study.reference_judge] if study.reference_judge else [], study.judges)
    yield from _named("policies", study.policies, study.models)
    if study.predictor and Path(study.predictor) == Path(PREDICTOR.format(study=study.study)):
        yield "predictor: that of the study itself is made from its trained arms; give another study's"
    if "base" in study.methods:
        yield "methods.base: 'base' is the untuned policy; choose another name"


def models_write_what_is_read(study: "Study") -> Iterator[str]:
    """Models that write ratings are judges, and nothing else is."""
    raters = {name for name, model in study.models.items() if isinstance(model, MicroworldModel) and model.writes == "ratings"}
    writers = {f"policies: '{name}'": name for name in study.policies}
    for name, generator in _own_generators(study).items():
        if isinstance(generator, CheckpointGenerator):
            writers[f"generators.{name}.model: '{generator.model}'"] = generator.model
    yield from (f"{where} writes ratings, not traces" for where, name in writers.items() if name in raters)
    for name, judge in study.judges.items():
        if isinstance(judge.endpoint, TransformersEndpoint):
            served = judge.endpoint.model
            if isinstance(study.models.get(served), MicroworldModel) and served not in raters:
                yield f"judges.{name}.endpoint.model: '{served}' writes traces, not ratings"


def folders_exist(study: "Study") -> Iterator[str]:
    """Folders that could be nothing else are there."""
    for suite, tasks in study.suites.items():
        for task, source in tasks.items():
            if isinstance(source, BenchmarkSource) and source.include_path and not Path(source.include_path).is_dir():
                yield f"suites.{suite}.{task}.include_path: {source.include_path} is no folder"


def tasks_have_problems(study: "Study") -> Iterator[str]:
    """Every task is known and has a number of problems, or a source."""
    tasks = [task for suite in study.suites.values() for task in suite]
    for task in sorted({task for task in tasks if tasks.count(task) > 1}):
        yield f"suites: '{task}' is in two suites; an item belongs to one"
    sections = {"prompts": study.prompts} | {f"suites.{name}": suite for name, suite in study.suites.items()}
    for key, by_task in sections.items():
        training = key == "prompts"
        known = [*DOMAINS, *(CORPORA if training else (*BENCHMARKS, "lm_eval:{task}"))]
        yield from _named(key, [task for task in by_task if training or not task.startswith("lm_eval:")], known)
        for task, source in by_task.items():
            if (task in DOMAINS) != isinstance(source, int):
                yield f"{key}.{task}: {'a number of problems' if task in DOMAINS else 'a source with `repo`'} is needed"
    if "train" in study.suites:
        yield "suites.train: 'train' is the split of the training prompts; choose another name"
    if study.operations is None:
        if {*study.prompts, *tasks} & {*DOMAINS} or any(isinstance(model, MicroworldModel) for model in study.models.values()):
            yield "operations: [fewest, most] operations of a problem are needed by the micro-world"
    elif study.operations[0] > study.operations[1] or study.operations[1] > 8:
        yield f"operations: {list(study.operations)} must be [fewest, most] with most at least fewest, at most 8"


def experiments_can_be_made(study: "Study") -> Iterator[str]:
    """Experiments name what there is, and ask for no more pairs than there are."""
    for name, experiment in study.experiments.items():
        if name in RESERVED:
            yield f"experiments.{name}: the name is taken by a table that every study has"
        for word in ("chosen", "rejected", "policy", "method", "judge"):
            yield from _named(f"experiments.{name}.{word}", getattr(experiment, word), study.choices(word))
        for chosen, rejected in experiment.pairs:
            yield from _named(f"experiments.{name}.pairs", [chosen, rejected], study.choices("chosen"))
        listed = [" over ".join(sides) for sides in experiment.pairs]
        yield from _named(f"experiments.{name}.pairs", listed, listed)
        yield from _named(f"experiments.{name}.selection", experiment.selection, experiment.selection)
        for selection in experiment.selection:
            try:
                study.selection(draw_for_seed(selection, 0))
            except SelectionError as error:
                yield f"experiments.{name}.selection: {error}"


def run_settings_fit(study: "Study") -> Iterator[str]:
    """Run settings are of something, and recipes can run so."""
    asking = [name for name, generator in _own_generators(study).items() if isinstance(generator, OpenAIGenerator)]
    of_models = [name for name, model in study.models.items() if isinstance(model, HubModel)]
    yield from _named("run.models", study.run.models, of_models)
    yield from _named("run.generators", study.run.generators, asking)
    yield from _named("run.judges", study.run.judges, study.judges)
    yield from _named("run.methods", study.run.methods, study.methods)
    for name, recipe in study.methods.items():
        if fault := recipe.fault(study.run.methods.get(name, TrainingRun())):
            yield f"methods.{name}: {fault}"
    asked = {f"run.judges.{name}": (study.run.judges.get(name), judge.endpoint) for name, judge in study.judges.items()}
    for name, generator in _own_generators(study).items():
        if isinstance(generator, OpenAIGenerator):
            asked[f"run.generators.{name}"] = (study.run.generators.get(name), generator.endpoint)
    for key, (requests, endpoint) in asked.items():
        if (requests or RequestsRun()).batch and endpoint.kind != "url":
            yield f"{key}: batch needs a provider's endpoint (kind url), not {endpoint.kind}"


ALL: tuple[Callable[["Study"], Iterator[str]], ...] = (
    models_exist,
    models_write_what_is_read,
    tasks_have_problems,
    folders_exist,
    experiments_can_be_made,
    run_settings_fit,
)
