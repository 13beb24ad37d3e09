"""Plans of exports: where the pairs and the checkpoint of a cell come from."""

from collections.abc import Mapping
from typing import Any

from prefdelta.export.settings import ExportSettings, Origin
from prefdelta.plan.findings import bootstrap
from prefdelta.plan.generation import generator_sampling
from prefdelta.plan.job import Job
from prefdelta.plan.training import train_policy
from prefdelta.study import paths
from prefdelta.study.endpoints import FileEndpoint, MicroworldEndpoint, TransformersEndpoint, UrlEndpoint, VllmEndpoint
from prefdelta.study.generators import CheckpointGenerator, DatasetGenerator
from prefdelta.study.lattice import Cell
from prefdelta.study.models import MicroworldModel
from prefdelta.study.sources import Source
from prefdelta.study.study import Study


def _model(study: Study, name: str, **settings: Any) -> Origin:
    model = study.models[name]
    if isinstance(model, MicroworldModel):
        return Origin(settings={"pretraining": model.model_dump(), **settings})
    settings |= model.model_dump(include={"dtype", "system", "chat_template_kwargs", "think"}, exclude_none=True)
    return Origin(source=model.repo, revision=model.revision, license=model.license, settings=settings)


def _source(study: Study, source: int | Source) -> Origin:
    if isinstance(source, int):
        return Origin(settings={"n": source, "operations": study.operations})
    settings = source.model_dump(mode="json", exclude={"repo", "revision", "license"}, exclude_none=True)
    return Origin(source=source.repo, revision=source.revision, license=source.license, settings=settings)


def _generator(study: Study, name: str) -> Origin:
    generator = study.generators[name]
    if isinstance(generator, DatasetGenerator):
        return _source(study, generator)
    settings: dict[str, Any] = {"sampling": generator_sampling(study, generator).model_dump(), "seed": generator.seed}
    if isinstance(generator, CheckpointGenerator):
        return _model(study, generator.model, **settings)
    settings |= generator.model_dump(include={"system", "extra_body", "think"})
    if isinstance(generator.endpoint, VllmEndpoint):
        return _model(study, generator.endpoint.model, **settings)
    return Origin(source=generator.model, settings={**settings, **_omitted(generator.endpoint)})


def _omitted(endpoint: UrlEndpoint) -> dict[str, Any]:
    """What was not asked for, though the settings name it."""
    return endpoint.model_dump(include={"omit"}, exclude_defaults=True)


def _judge(study: Study, name: str) -> Origin:
    judge = study.judges[name]
    kept = {"model", "repeats", "separate_dimensions", "step_coherence", "reasoning_effort", "temperature", "max_tokens", "seed"}
    settings = judge.model_dump(include=kept, exclude_none=True)
    match judge.endpoint:
        case VllmEndpoint(model=served) | TransformersEndpoint(model=served):
            return _model(study, served, **settings)
        case UrlEndpoint():
            return Origin(source=judge.model, settings={**settings, **_omitted(judge.endpoint)})
        case FileEndpoint():
            return Origin(source=judge.model, settings=settings)
        case MicroworldEndpoint(noise=noise, unparsable=unparsable):
            return Origin(settings={**settings, "noise": noise, "unparsable": unparsable})


def export_cell(study: Study, words: Mapping[str, str]) -> Job:
    trained = train_policy(study, words).settings
    cell: Cell = trained.cell  # type: ignore[union-attr]
    settings = ExportSettings(
        study=study.study,
        cell=cell,
        prompts={task: _source(study, source) for task, source in study.prompts.items()},
        generators={name: _generator(study, name) for name in (cell.chosen, cell.rejected)},
        judge=_judge(study, cell.judge),
        rubric=study.judges[cell.judge].rubric,
        policy=_model(study, cell.policy),
        **study.export.model_dump(),
        bootstrap=bootstrap(study),
    )
    inputs = {
        "pairs": paths.PAIRS.format(**words),
        "checkpoint": paths.CHECKPOINT.format(**words),
        "evals": paths.EVAL.format(**words),
        "base_evals": paths.EVAL_BASE.format(study=study.study, model=cell.policy),
    }
    return Job(inputs, settings)
