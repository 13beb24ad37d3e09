"""What each rule's job depends on besides files: one canonical JSON string, the keyword arguments of its stage function.

Snakemake compares parameters as a set without names, so a job gets exactly one string: it reruns when, and only when, something
in it changes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prefdelta.study import paths
from prefdelta.study.config import (
    BenchmarkSource,
    CheckpointGenerator,
    DatasetGenerator,
    Decoding,
    FileEndpoint,
    HubModel,
    JudgeEndpoint,
    MicroworldEndpoint,
    MicroworldModel,
    OpenAIGenerator,
    PartialSampling,
    Source,
    Study,
    TransformersEndpoint,
    UrlEndpoint,
    VllmEndpoint,
)
from prefdelta.study.lattice import (
    SIDES,
    Arm,
    all_references,
    arms,
    backend,
    evaluated_models,
    experiment_content,
    generator_family,
    judge_family,
    judged_sides,
    pair_groups,
    rated_generators,
    trained_arms,
)
from prefdelta.study.sampling import Sampling

NOT_STATED = "not stated"
MICROWORLD_SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "gpus": 0,
    "max_model_len": 256,
    "gpu_memory_utilization": 0.9,
    "engine": {},
    "system": None,
    "chat_template_kwargs": {},
    "think": ("", ";"),  # the last statement is the answer
}


def canonical(content: dict[str, Any]) -> str:
    """JSON with sorted keys: equal contents are equal strings."""
    return json.dumps(content, sort_keys=True)


def derived_seed(study: Study, *names: object) -> int:
    """A seed that depends on the study's seed and on ``names`` alone."""
    text = "/".join(map(str, [study.seed, *names]))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % 2**31


def _tasks(tasks: Mapping[str, int | Source]) -> dict[str, Any]:
    return {name: source if isinstance(source, int) else source.model_dump(mode="json") for name, source in tasks.items()}


def items_spec(study: Study, suite: str) -> str:
    tasks = _tasks(study.suites[suite])
    return canonical({"split": suite, "tasks": tasks, "operations": study.operations, "seed": study.seed})


def prompts_spec(study: Study) -> str:
    tasks = _tasks(study.prompts)
    ngram = study.decontamination_ngram
    return canonical({"tasks": tasks, "operations": study.operations, "seed": study.seed, "ngram": ngram})


def pretrain_spec(study: Study, name: str) -> str:
    model = study.models[name]
    assert isinstance(model, MicroworldModel)
    content = model.model_dump()
    authors = [(weight, study.authors[author]) for author, weight in content.pop("authors").items()]
    return canonical({**content, "authors": authors, "operations": study.operations})


def fetch_spec(study: Study, name: str) -> str:
    model = study.models[name]
    assert isinstance(model, HubModel)
    return canonical({"repo": model.repo, "revision": model.revision, "family": model.family})


def _model_settings(study: Study, name: str) -> dict[str, Any]:
    """What a job must know of a checkpoint, besides its folder."""
    model = study.models[name]
    return model.model_dump(include=set(MICROWORLD_SETTINGS)) if isinstance(model, HubModel) else MICROWORLD_SETTINGS


def _settings(study: Study, name: str, decoding: Decoding) -> dict[str, Any]:
    return {**_model_settings(study, name), "batch_size": decoding.batch_size}


def _chat(study: Study, name: str) -> dict[str, Any]:
    settings = _model_settings(study, name)
    return {"system": settings["system"], "chat_template_kwargs": settings["chat_template_kwargs"]}


def _sampling(decoding: Decoding, *overrides: PartialSampling) -> dict[str, Any]:
    sampling = decoding.model_dump(include=set(Sampling.model_fields))
    for override in overrides:
        sampling |= override.model_dump(exclude_none=True)
    return sampling


def _generator_sampling(study: Study, generator: CheckpointGenerator | OpenAIGenerator) -> dict[str, Any]:
    """The study's words, then those of the model, then the generator's own."""
    model = study.models.get(generator.model) if isinstance(generator, CheckpointGenerator) else None
    overrides = [model.sampling] if isinstance(model, HubModel) else []
    return _sampling(study.sampling, *overrides, generator.sampling)


def _endpoint(study: Study, endpoint: JudgeEndpoint) -> dict[str, Any]:
    content = endpoint.model_dump()
    if isinstance(endpoint, VllmEndpoint):
        settings = _model_settings(study, endpoint.model)
        content |= {key: settings[key] for key in ("gpus", "dtype", "max_model_len")}
    return content


def traces_spec(study: Study, name: str) -> str:
    generator = study.generators[name]
    if isinstance(generator, DatasetGenerator):
        settings = generator.model_dump(mode="json", exclude={"backend", "tokenizer", "n"})
        sampling, seed = _sampling(study.sampling), 0
    else:
        if isinstance(generator, CheckpointGenerator):
            settings = _settings(study, generator.model, study.sampling)
        else:
            settings = generator.model_dump(exclude={"backend", "sampling", "seed"})
            settings["endpoint"] = _endpoint(study, generator.endpoint)
        sampling = _generator_sampling(study, generator)
        seed = derived_seed(study, "traces", generator.model, generator.seed)
    content = {"generator": name, "backend": backend(study, name), "settings": settings, "sampling": sampling, "seed": seed}
    return canonical(content)


def ratings_spec(study: Study, name: str) -> str:
    judge = study.judges[name]
    return canonical({**judge.model_dump(), "endpoint": _endpoint(study, judge.endpoint), "judge": name})


def reference_spec(study: Study, policy: str) -> str:
    recipes = [recipe for recipe in study.methods.values() if recipe.has_reference]
    # The arithmetic of training: float32 weights, but for those that only an adapter is trained on.
    dtype = "auto" if recipes and all(recipe.lora for recipe in recipes) else "float32"
    arithmetic = {"dtype": dtype, "bf16": any(recipe.bf16 for recipe in recipes)}
    lengths = sorted({recipe.max_length for recipe in recipes})
    content = {"batch_size": study.sampling.batch_size, "max_lengths": lengths, **arithmetic}
    return canonical({**content, "chat": _chat(study, policy)})


def pairs_spec(study: Study, judge: str, selection: str) -> str:
    return canonical({"judge": judge, "selection": selection, "seed": study.seed})


def training_spec(study: Study, cell: dict[str, str]) -> str:
    recipe = study.methods[cell["method"]]
    n_steps = recipe.n_steps(study.n_full_pairs)
    seed = derived_seed(study, "training", cell["seed"])
    content = {"recipe": recipe.model_dump(), "n_steps": n_steps, "cell": cell, "seed": seed}
    return canonical({**content, "chat": _chat(study, cell["policy"])})


def evaluation_spec(study: Study, model: str) -> str:
    evaluation = study.evaluation
    by_task = {
        task: source.samples
        for suite in study.suites.values()
        for task, source in suite.items()
        if isinstance(source, BenchmarkSource) and source.samples
    }
    content = {"backend": study.backend, "settings": _settings(study, model, evaluation), "sampling": _sampling(evaluation)}
    return canonical({**content, "samples_by_task": by_task, "greedy": evaluation.greedy, "seed": evaluation.seed})


def _origin(settings: dict[str, Any], source: str | None = None, revision: str | None = None, license: str = NOT_STATED) -> Any:
    """An `export.Origin`; without a source: the micro-world."""
    return {"source": source, "revision": revision, "license": license, "settings": settings}


def _model_origin(study: Study, name: str, **settings: Any) -> Any:
    model = study.models[name]
    if isinstance(model, MicroworldModel):
        return _origin({"pretraining": model.model_dump(), **settings})
    # Not how a job runs it (GPUs, engine), which is nobody else's affair.
    settings |= model.model_dump(include={"dtype", "max_model_len", "system", "chat_template_kwargs", "think"}, exclude_none=True)
    return _origin(settings, model.repo, model.revision, model.license)


def _source_origin(study: Study, source: int | Source) -> Any:
    if isinstance(source, int):
        return _origin({"n": source, "operations": study.operations})
    settings = source.model_dump(mode="json", exclude={"repo", "revision", "license"}, exclude_none=True)
    return _origin(settings, source.repo, source.revision, source.license)


def _generator_origin(study: Study, name: str) -> Any:
    generator = study.generators[name]
    if isinstance(generator, DatasetGenerator):
        return _source_origin(study, generator)
    settings: dict[str, Any] = {"sampling": _generator_sampling(study, generator), "seed": generator.seed}
    if isinstance(generator, CheckpointGenerator):
        return _model_origin(study, generator.model, **settings)
    settings |= generator.model_dump(include={"system", "extra_body", "think"})
    if isinstance(generator.endpoint, VllmEndpoint):
        return _model_origin(study, generator.endpoint.model, **settings)
    return _origin(settings, generator.model)


def _judge_origin(study: Study, name: str) -> Any:
    judge = study.judges[name]
    kept = {"model", "repeats", "separate_dimensions", "reasoning_effort", "temperature", "max_tokens", "seed"}
    settings = judge.model_dump(include=kept, exclude_none=True)
    match judge.endpoint:
        case VllmEndpoint(model=served) | TransformersEndpoint(model=served):
            return _model_origin(study, served, **settings)
        case UrlEndpoint() | FileEndpoint():
            return _origin(settings, judge.model)
        case MicroworldEndpoint(noise=noise, unparsable=unparsable):
            return _origin({**settings, "noise": noise, "unparsable": unparsable})


def export_spec(study: Study, cell: dict[str, str]) -> str:
    """What the cards of an exported cell say besides what its files hold, and where it is uploaded."""
    content = {
        "cell": cell,
        "prompts": {task: _source_origin(study, source) for task, source in study.prompts.items()},
        "generators": {cell[side]: _generator_origin(study, cell[side]) for side in ("chosen", "rejected")},
        "judge": _judge_origin(study, cell["judge"]),
        "policy": _model_origin(study, cell["policy"]),
        **study.export.model_dump(),
    }
    return canonical({**content, "n_resamples": study.bootstrap, "seed": study.seed})


def _statistics(study: Study) -> dict[str, Any]:
    return {"study": study.study, "n_resamples": study.bootstrap, "seed": study.seed}


def _with_cells(study: Study, name: str) -> dict[str, Any]:
    """`grid.experiment_content` of a trained experiment, with the cells of each arm."""
    content = experiment_content(study, name)
    for row, arm in zip(content["arms"], arms(study, name), strict=True):
        row["cells"] = [arm.cell(study, seed) for seed in range(content["n_seeds"])]
    return content


def experiment_spec(study: Study, name: str) -> str:
    content = _with_cells(study, name) if name in study.trained else experiment_content(study, name)
    return canonical({**_statistics(study), "content": content})


def balance_spec(study: Study) -> str:
    return canonical({"study": study.study, "experiments": [_with_cells(study, name) for name in study.trained]})


def capability_spec(study: Study) -> str:
    return canonical({**_statistics(study), "models": evaluated_models(study)})


def generator_deltas_spec(study: Study) -> str:
    return canonical({**_statistics(study), "sides": judged_sides(study)})


def judge_audit_spec(study: Study) -> str:
    judges = []
    for name, generators in judged_sides(study).items():
        if not generators:
            continue  # no arm uses it
        judge = study.judges[name]
        asked = None if isinstance(judge.endpoint, FileEndpoint) else judge.choices_per_request
        cost = {"choices_per_request": asked, "separate_dimensions": judge.separate_dimensions}
        judges.append({"judge": name, "generators": generators, "family": judge_family(study, name), **cost})
    families = {name: generator_family(study, name) for name in study.generators}
    return canonical({**_statistics(study), "judges": judges, "families": families, "reference": study.reference_judge})


def judge_audit_figure_spec(study: Study) -> str:
    return canonical({"reference": study.reference_judge})


def delta_correction_spec(study: Study) -> str:
    """The pairs of all cells of the trained arms, which several policies and methods may share."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    words = ("judge", "chosen", "rejected", "selection")
    for arm, seeds in trained_arms(study).items():
        cells = found.setdefault(tuple(getattr(arm, word) for word in words), [])
        for seed in range(seeds):
            cell = {word: arm.cell(study, seed)[word] for word in words}
            if cell not in cells:
                cells.append(cell)
    rows = [{**dict(zip(words, names, strict=True)), "cells": cells} for names, cells in found.items()]
    return canonical({**_statistics(study), "pairs": rows, "reference": study.reference_judge})


def coverage_spec(study: Study) -> str:
    return canonical({"study": study.study, "rated": rated_generators(study)})


def whatif_spec(study: Study) -> str:
    uses: dict[Arm, list[str]] = {}
    for name in study.trained:
        for arm in arms(study, name):
            uses.setdefault(arm, []).append(name)
    stored, rows = set(all_references(study)), []
    for arm, seeds in trained_arms(study).items():
        recipe = study.methods[arm.method]
        cells = [arm.cell(study, seed) for seed in range(seeds)]
        needed = {paths.REFERENCE.format(**cell, generator=cell[side]) for cell in cells for side in SIDES}
        training = {key: getattr(recipe, key) for key in ("trainer", "batch_size", "n_examples", "unit", "max_length")}
        training |= {"n_steps": recipe.n_steps(study.n_full_pairs), "has_lengths": needed <= stored}
        training["reads"] = ["chosen"] if recipe.trainer == "sft" else SIDES
        rows.append({**asdict(arm), "experiments": uses[arm], "cells": cells, **training})
    content = {"study": study.study, "suite": list(study.suites)[-1], "arms": rows, "predictor": study.predictor}
    return canonical({**content, "cost": study.cost.model_dump() if study.cost else None})


def whatif_figure_spec(study: Study) -> str:
    gates = study.gates.model_dump(include={"identical_pairs", "truncated"})
    content = {"study": study.study, "suite": list(study.suites)[-1], "predictor": study.predictor}
    return canonical({**content, **gates})


def overlap_spec(study: Study) -> str:
    return canonical({"groups": pair_groups(study)})


def regressions_figure_spec(study: Study) -> str:
    return canonical({"study": study.study, "suite": list(study.suites)[-1]})


def _arm_rows(study: Study, seeds_by_arm: dict[Arm, int]) -> list[dict[str, Any]]:
    """The words and the cells of each arm."""
    return [{**asdict(arm), "cells": [arm.cell(study, seed) for seed in range(seeds)]} for arm, seeds in seeds_by_arm.items()]


def regressions_spec(study: Study) -> str:
    """Trends of ladders, qualities of grids, and the five deltas of all arms of the first policy, method and judge."""

    kinds = {"ladder": "trend", "grid": "quality"}
    models = [
        {
            "model": name,
            "kind": kinds[experiment.figure],
            "arms": _arm_rows(study, dict.fromkeys(arms(study, name), experiment.seeds)),
        }
        for name, experiment in study.experiments.items()
        if experiment.figure in kinds
    ]
    first = (study.policies[0], next(iter(study.methods)), next(iter(study.judges)))
    everywhere = {arm: seeds for arm, seeds in trained_arms(study).items() if (arm.policy, arm.method, arm.judge) == first}
    models.append({"model": "dimensions", "kind": "dimensions", "arms": _arm_rows(study, everywhere)})
    return canonical({**_statistics(study), "suite": list(study.suites)[-1], "models": models})


def _models(study: Study) -> dict[str, str]:
    """generator -> the model that it samples, where it is one of the study's."""
    return {name: generator.model for name, generator in study.generators.items() if isinstance(generator, CheckpointGenerator)}


def prediction_spec(study: Study) -> str:
    rows = _arm_rows(study, trained_arms(study))
    return canonical({**_statistics(study), "suite": list(study.suites)[-1], "arms": rows, "models": _models(study)})


def claims_spec(study: Study) -> str:
    experiments = [
        {"experiment": name, "question": experiment.question, "caveat": experiment.caveat}
        for name, experiment in study.trained.items()
    ]
    content = {"study": study.study, "experiments": experiments, "suites": list(study.suites)}
    return canonical({**content, "models": _models(study), "reference": study.reference_judge})


def answers_spec(study: Study) -> str:
    figures: dict[str, list[str]] = {}
    for name, experiment in study.experiments.items():
        shown = [name, "regressions"] if experiment.figure == "grid" else [name]
        figures[experiment.question] = figures.get(experiment.question, []) + shown
    return canonical({"study": study.study, "suite": list(study.suites)[-1], "figures": figures})


def figure_spec(study: Study, name: str) -> str:
    experiment = study.experiments[name]
    words = {key: getattr(experiment, key) for key in ("title", "question", "caveat", "figure")}
    content = experiment_content(study, name)
    return canonical({"study": study.study, "content": content, "figure": words, "suites": list(study.suites)})


def capability_figure_spec(study: Study) -> str:
    return canonical({"suites": list(study.suites)})
