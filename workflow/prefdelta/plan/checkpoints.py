"""Plans of checkpoints that are not tuned: trained from scratch, or fetched."""

from collections.abc import Mapping

from prefdelta.checkpoints.settings import FetchSettings, PretrainSettings
from prefdelta.plan.job import Job
from prefdelta.plan.problems import local_files
from prefdelta.study import paths
from prefdelta.study.models import Chat, HubModel, Inference, MicroworldModel
from prefdelta.study.run import ModelRun
from prefdelta.study.study import Study


def base(study: Study, model: str) -> str:
    """The manifest of an untuned checkpoint."""
    return paths.BASE.format(study=study.study, model=model)


def inference(study: Study, name: str) -> Inference:
    """What a job must know of a checkpoint that it runs."""
    model = study.models[name]
    if isinstance(model, MicroworldModel):
        return Inference()
    return Inference.model_validate(model.model_dump(include=set(Inference.model_fields)))


def chat(study: Study, name: str) -> Chat:
    model = study.models[name]
    return model.chat if isinstance(model, HubModel) else Chat()


def without_gpus(study: Study) -> Study:
    """``study`` on a machine without any GPU: models of which the configuration does not say `gpus` take none."""
    given = {name: study.run.models.get(name, ModelRun()) for name, model in study.models.items() if isinstance(model, HubModel)}
    models = {name: run if "gpus" in run.model_fields_set else run.model_copy(update={"gpus": 0}) for name, run in given.items()}
    return study.model_copy(update={"run": study.run.model_copy(update={"models": models})})


def model_run(study: Study, name: str | None) -> ModelRun:
    """How inference with a model runs. Those of the micro-world need no GPU."""
    if name and isinstance(study.models[name], HubModel):
        return study.run.models.get(name, ModelRun())
    return ModelRun(gpus=0)


def pretrain_model(study: Study, words: Mapping[str, str]) -> Job:
    model = study.models[words["model"]]
    assert isinstance(model, MicroworldModel) and study.operations
    content = model.model_dump(exclude={"authors", "operations", "start"})
    authors = [(weight, study.authors[author]) for author, weight in model.authors.items()]
    operations = model.operations or study.operations
    settings = PretrainSettings(**content, authors=authors, operations=operations, world=study.world)
    return Job({"start": base(study, model.start) if model.start else []}, settings)


def fetch_model(study: Study, words: Mapping[str, str]) -> Job:
    model = study.models[words["model"]]
    assert isinstance(model, HubModel)
    settings = FetchSettings(repo=model.repo, revision=model.revision, family=model.family)
    return Job({"data": local_files(model.repo)}, settings)
