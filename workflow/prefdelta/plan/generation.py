"""Plans of jobs that complete prompts: traces and evaluations."""

from collections.abc import Mapping, Sequence

from prefdelta.generate.settings import (
    ApiSettings,
    CheckpointSettings,
    DatasetSettings,
    GenerationRun,
    PredictionsSettings,
    TemperaturesSettings,
    TracesSettings,
)
from prefdelta.plan.checkpoints import base, inference, model_run
from prefdelta.plan.job import Job, derived_seed
from prefdelta.plan.problems import local_files, suites, task_files, task_modules
from prefdelta.run.errors import ConfigError
from prefdelta.study import paths
from prefdelta.study.endpoints import VllmEndpoint
from prefdelta.study.generators import CheckpointGenerator, DatasetGenerator, OpenAIGenerator
from prefdelta.study.models import HubModel
from prefdelta.study.run import RequestsRun
from prefdelta.study.sampling import Sampling
from prefdelta.study.sources import BenchmarkSource, OwnItems
from prefdelta.study.study import Study


def needed_model(study: Study, generator: str) -> str | None:
    """The model whose checkpoint a generator's job reads; None where it needs none."""
    match study.generators[generator]:
        case CheckpointGenerator(model=name) | DatasetGenerator(tokenizer=name):
            return name
        case OpenAIGenerator(endpoint=VllmEndpoint(model=name)):
            return name
    return None


def running_model(study: Study, generator: str) -> str | None:
    """The model that a generator's job runs; None where it only reads a data set or asks an endpoint."""
    return None if isinstance(study.generators[generator], DatasetGenerator) else needed_model(study, generator)


def generator_family(study: Study, generator: str) -> str | None:
    """The family of the model that wrote a generator's traces; None where that is none of the study's."""
    model = running_model(study, generator)
    return study.models[model].family if model else None


def generator_sampling(study: Study, generator: CheckpointGenerator | OpenAIGenerator) -> Sampling:
    """The study's words, then those of the model, then the generator's own."""
    model = study.models.get(generator.model) if isinstance(generator, CheckpointGenerator) else None
    overrides = [model.sampling] if isinstance(model, HubModel) else []
    return study.sampling.changed(*overrides, generator.sampling)


def requests_run(study: Study, generator: str) -> RequestsRun:
    """How requests to a generator are made; its draws are asked as it is."""
    return study.run.generators.get(_configured(generator), RequestsRun())


def _configured(generator: str) -> str:
    """The name in the configuration of a generator, or of that of which it is a draw."""
    return generator.partition(".draw")[0]


def _checkpoint(study: Study, model: str, backend: str) -> CheckpointSettings:
    return CheckpointSettings.model_validate({**inference(study, model).model_dump(), "backend": backend})


def _run(study: Study, model: str | None, generator: str | None = None) -> GenerationRun:
    asked = {"requests": requests_run(study, generator), "generator": _configured(generator)} if generator else {}
    return GenerationRun.model_validate({"batch_size": study.run.batch_size, "model": model_run(study, model), **asked})


def backend_modules(backend: str) -> tuple[str, ...]:
    """The modules of a backend, which are started by name."""
    return (f"prefdelta.generate.backend_{backend}",)


def server_modules(kind: str | None) -> tuple[str, ...]:
    """The modules of what serves an endpoint of ``kind``, which are started by name."""
    return (f"prefdelta.endpoint.serve_{kind}",) if kind not in (None, "url") else ()


def sample_traces(study: Study, words: Mapping[str, str]) -> Job:
    name = words["generator"]
    generator = study.generators[name]
    data: list[str] = []
    sampling, seed = study.sampling.changed(), 0
    started = None
    backend: CheckpointSettings | ApiSettings | DatasetSettings
    match generator:
        case DatasetGenerator():
            content = generator.model_dump(exclude={"tokenizer", "n"})
            backend, data = DatasetSettings.model_validate(content), local_files(generator.repo)
        case CheckpointGenerator():
            backend = _checkpoint(study, generator.model, generator.backend or study.backend)
        case OpenAIGenerator():
            kept = generator.model_dump(include=set(ApiSettings.model_fields))
            served = needed_model(study, name)
            backend = ApiSettings.model_validate({**kept, "dtype": inference(study, served).dtype if served else "auto"})
            started = generator.endpoint.kind
    if not isinstance(generator, DatasetGenerator):
        sampling = generator_sampling(study, generator)
        seed = derived_seed(study, "traces", generator.model, generator.seed)
    model = needed_model(study, name)
    return Job(
        {
            "prompts": paths.TRAINING_PROMPTS.format(study=study.study),
            "manifest": base(study, model) if model else [],
            "data": data,
        },
        TracesSettings(generator=name, backend=backend, sampling=sampling, seed=seed),
        _run(study, running_model(study, name), name),
        backend_modules(backend.backend) + server_modules(started) + task_modules(study.prompts),
    )


def _evaluation(study: Study, model: str, manifest: str, temperatures: Sequence[float] = ()) -> Job:
    evaluation = study.evaluation
    by_task = {
        task: source.samples
        for suite in study.suites.values()
        for task, source in suite.items()
        if isinstance(source, BenchmarkSource | OwnItems) and source.samples
    }
    content = {
        "backend": _checkpoint(study, model, study.backend),
        "sampling": evaluation.changed(),
        "samples_by_task": by_task,
        "greedy": evaluation.greedy,
        "seed": evaluation.seed,
    }
    settings = PredictionsSettings.model_validate(content)
    if temperatures:
        settings = TemperaturesSettings.model_validate({**content, "greedy": False, "temperatures": list(temperatures)})
    tasks = {task: None for suite in study.suites.values() for task in suite}
    starts = backend_modules(study.backend) + task_modules(tasks)
    files = {"manifest": manifest, "suites": suites(study), "task_files": task_files(study)}
    return Job(files, settings, _run(study, model), starts)


def evaluate_base(study: Study, words: Mapping[str, str]) -> Job:
    return _evaluation(study, words["model"], base(study, words["model"]))


def evaluate_temperatures(study: Study, words: Mapping[str, str]) -> Job:
    """Raises ConfigError where the study has no other temperatures."""
    if not study.evaluation.temperatures:
        raise ConfigError(f"evaluation.temperatures of study {study.study} is empty: list some there")
    return _evaluation(study, words["model"], base(study, words["model"]), study.evaluation.temperatures)


def evaluate_checkpoint(study: Study, words: Mapping[str, str]) -> Job:
    return _evaluation(study, words["policy"], paths.CHECKPOINT.format(**words))
