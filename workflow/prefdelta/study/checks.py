"""Checks across the sections of a study: names that must exist, and what must fit together. Each gives messages."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from prefdelta.study.dimensions import PAPER
from prefdelta.study.endpoints import ServedEndpoint, TransformersEndpoint, VllmEndpoint
from prefdelta.study.experiments import BY_ACCURACY, RESERVED
from prefdelta.study.generators import CheckpointGenerator, DatasetGenerator, OpenAIGenerator
from prefdelta.study.models import N_OPERATIONS, HubModel, MicroworldModel
from prefdelta.study.run import RequestsRun
from prefdelta.study.selections import SelectionError, draw_for_seed
from prefdelta.study.sources import BENCHMARKS, CORPORA, DOMAINS, FORMATS, BenchmarkSource, ProblemsSource

if TYPE_CHECKING:
    from prefdelta.study.study import Study

MOST_OPERATIONS = 8  # of a micro-world problem


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


def _fitting_start(study: "Study", name: str, model: MicroworldModel) -> Iterator[str]:
    if model.start is None:
        return
    start, key = study.models.get(model.start), f"models.{name}.start"
    if not isinstance(start, MicroworldModel) or start.start:
        scratch = [other for other, each in study.models.items() if isinstance(each, MicroworldModel) and not each.start]
        yield from _named(key, [model.start], scratch)
        return
    for part in ("family", "hidden_size", "layers", "heads", "writes"):
        if getattr(model, part) != getattr(start, part):
            yield f"{key}: '{model.start}' has {part} {getattr(start, part)}, and {name} has {getattr(model, part)}"


def models_exist(study: "Study") -> Iterator[str]:
    """Whoever names a model, or an author, names one of the study's."""
    for name, model in study.models.items():
        if isinstance(model, MicroworldModel):
            yield from _named(f"models.{name}.authors", model.authors, study.authors)
            yield from _fitting_start(study, name, model)
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
    if study.study in study.others:
        yield "predictor, replicates: results of the study itself can't be read before they are there; give another study's"
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
            if served in raters and judge.rubric != PAPER:
                yield f"judges.{name}.rubric: '{served}' has learned the paper's rubric only; leave it out, or ask another model"


def places_exist(study: "Study") -> Iterator[str]:
    """Folders, and files of problems of one's own, that could be nothing else are there."""
    for suite, tasks in study.suites.items():
        for task, source in tasks.items():
            if isinstance(source, BenchmarkSource) and source.include_path and not Path(source.include_path).is_dir():
                yield f"suites.{suite}.{task}.include_path: {source.include_path} is no folder"
    for key, own in study.own_problems.items():
        files = {"examples": Path(own.examples)} if own.examples else {}
        if Path(own.repo).suffix in FORMATS and not own.files:  # else it may be a folder, or on the hub
            files["repo"] = Path(own.repo)
        for name, file in files.items():
            if not file.is_file():
                there = map(str, file.parent.iterdir()) if file.parent.is_dir() else []
                yield f"{key}.{name}: there is no file {file}{nearest(str(file), there)}"


def columns_fit(source: ProblemsSource, found: Sequence[str], *, worked: bool = False) -> Iterator[str]:
    """What a file of problems of one's own, or of ``worked`` examples, lacks that has the columns ``found``."""
    there = f"but {', '.join(found)}"
    for key, column in source.columns.items():
        if column not in found and not (worked and key == "id"):
            yield f"columns.{key}: there is no column '{column}', {there}{nearest(column, found)}"
    needed = [["problem", "messages"], *([["choices"]] if source.answer_type == "choice" else [])]
    needed += [["answer"]] if worked or source.answer_type != "none" else []
    for keys in needed:
        if not {*source.columns, *found} & {*keys}:
            yield f"columns.{keys[0]}: say which column it is: there is no column {' or '.join(keys)}, {there}"


def tasks_have_problems(study: "Study") -> Iterator[str]:
    """Every task is known and has a number of problems, or a source."""
    tasks = [task for suite in study.suites.values() for task in suite]
    lengths: dict[str, list[int]] = {}
    for suite, named in study.suites.items():
        fewest, most = study.suite_operations.get(suite, study.operations) or (1, 1)
        for task in named:
            within = range(fewest, min(most, MOST_OPERATIONS) + 1)  # others are told below
            lengths.setdefault(task, []).extend(within if task in DOMAINS else [1])
    for task in sorted(task for task, several in lengths.items() if len(several) > len(set(several))):
        yield f"suites: '{task}' is in two suites{' with problems of equal length' * (task in DOMAINS)}; an item belongs to one"
    yield from _named("suite_operations", study.suite_operations, study.suites)
    sections = {"prompts": study.prompts} | {f"suites.{name}": suite for name, suite in study.suites.items()}
    for key, by_task in sections.items():
        training = key == "prompts"
        known = [*DOMAINS, *(CORPORA if training else (*BENCHMARKS, "lm_eval:{task}")), "any other name with `answer_type`"]
        own = {task: source for task, source in by_task.items() if isinstance(source, ProblemsSource)}
        others = [task for task in by_task if task not in own]
        yield from _named(key, [task for task in others if training or not task.startswith("lm_eval:")], known)
        for task, source in own.items():
            if task in (*DOMAINS, *BENCHMARKS, *CORPORA) or task.startswith("lm_eval:"):
                yield f"{key}.{task}: the name of a task with a reader of its own; choose another for problems of your own"
            if not training and source.answer_type == "none":
                yield f"{key}.{task}.answer_type: a suite needs right answers; only `prompts` can be without (none)"
        for task in others:
            if (task in DOMAINS) != isinstance(by_task[task], int):
                yield f"{key}.{task}: {'a number of problems' if task in DOMAINS else 'a source with `repo`'} is needed"
    if "train" in study.suites:
        yield "suites.train: 'train' is the split of the training prompts; choose another name"
    of_world = {*study.prompts, *tasks} & {*DOMAINS} or any(isinstance(model, MicroworldModel) for model in study.models.values())
    if study.operations is None and of_world:
        yield "operations: [fewest, most] operations of a problem are needed by the micro-world"
    ranges = {f"suite_operations.{name}": each for name, each in study.suite_operations.items()}
    ranges |= {"operations": study.operations} if study.operations else {}
    for name, model in study.models.items():
        if isinstance(model, MicroworldModel) and model.operations:
            ranges[f"models.{name}.operations"] = model.operations
    for key, operations in ranges.items():
        if operations[0] > operations[1] or operations[1] > MOST_OPERATIONS:
            yield f"{key}: {list(operations)} must be [fewest, most] with most at least fewest, at most {MOST_OPERATIONS}"
    if (n := sum(study.world.habits.values())) > N_OPERATIONS:
        yield f"world.habits: {n} habits, but there are {N_OPERATIONS} operations, and each has one at most"


def experiments_can_be_made(study: "Study") -> Iterator[str]:
    """Experiments name what there is, and ask for no more pairs than there are."""
    for name, experiment in study.experiments.items():
        if name in RESERVED:
            yield f"experiments.{name}: the name is taken by a table that every study has"
        if experiment.figure in BY_ACCURACY and not study.knows_correctness:
            yield (
                f"experiments.{name}.figure: a {experiment.figure} is by the accuracies of generators, and no training prompt "
                f"has a right answer (`answer_type: none` of {', '.join(study.unanswered)}): choose bars, sweep, steps, recipes "
                "or profile, or give right answers"
            )
        for word in ("chosen", "rejected", "policy", "method", "judge"):
            yield from _named(f"experiments.{name}.{word}", getattr(experiment, word), study.choices(word))
        for chosen, rejected in experiment.pairs:
            yield from _named(f"experiments.{name}.pairs", [chosen, rejected], study.choices("chosen"))
        listed = [" over ".join(sides) for sides in experiment.pairs]
        yield from _named(f"experiments.{name}.pairs", listed, listed)
        yield from _named(f"experiments.{name}.selection", experiment.selection, experiment.selection)
        judges = [judge for judge in experiment.judge or list(study.judges)[:1] if judge in study.judges]
        wrong: list[str] = []
        for selection, judge in product(experiment.selection, judges):
            try:
                study.selection(draw_for_seed(selection, 0), judge)
            except SelectionError as error:
                wrong.append(f"experiments.{name}.selection: {error}")
        yield from dict.fromkeys(wrong)


def sweeps_can_be_made(study: "Study") -> Iterator[str]:
    """Sweeps are of methods, have names of their own, give recipes that can be, and are judged on a suite of their own."""
    for name, sweep in study.sweeps.items():
        yield from _named(f"sweeps.{name}.method", [sweep.method], study.methods)
        if name in study.methods:
            yield f"sweeps.{name}: '{name}' is a method, too; choose another name"
        if sweep.method in study.methods:
            try:
                made = sweep.recipes(study.methods[sweep.method])
            except ValidationError as error:
                yield f"sweeps.{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            else:
                taken = [one for one, recipe in made.items() if study.methods.get(one, recipe) != recipe]
                yield from (f"sweeps.{name}: '{one}' is the name of another method" for one in taken)
    if study.validation is not None:
        yield from _named("validation", [study.validation], study.suites)
        if study.validation == study.answered_suite:
            yield f"validation: '{study.validation}' is the last suite, which answers are about; recipes are chosen on another"
    for name, experiment in study.experiments.items():
        if experiment.figure == "recipes" and study.validation is None:
            yield f"experiments.{name}: `validation` must name the suite on which the best recipe is found"


def run_settings_fit(study: "Study") -> Iterator[str]:
    """Run settings are of something, and recipes can run so."""
    asking = [name for name, generator in _own_generators(study).items() if isinstance(generator, OpenAIGenerator)]
    of_models = [name for name, model in study.models.items() if isinstance(model, HubModel)]
    yield from _named("run.models", study.run.models, of_models)
    yield from _named("run.generators", study.run.generators, asking)
    yield from _named("run.judges", study.run.judges, study.judges)
    yield from _named("run.methods", study.run.methods, study.methods)
    for name, recipe in study.methods.items():
        if fault := recipe.fault(study.training_run(name)):
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
    places_exist,
    experiments_can_be_made,
    run_settings_fit,
)
