"""Plans of ratings."""

from collections.abc import Mapping

from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.plan.checkpoints import base, inference, model_run
from prefdelta.plan.generation import server_modules
from prefdelta.plan.job import Job
from prefdelta.study import paths
from prefdelta.study.endpoints import FileEndpoint, ServedEndpoint
from prefdelta.study.run import RequestsRun
from prefdelta.study.study import Study


def judge_model(study: Study, judge: str) -> str | None:
    """The model whose checkpoint a judge's job serves; None where it serves none."""
    endpoint = study.judges[judge].endpoint
    return endpoint.model if isinstance(endpoint, ServedEndpoint) else None


def judge_family(study: Study, judge: str) -> str | None:
    """The family of a judge's model; None where that is none of the study's."""
    model = judge_model(study, judge)
    return study.models[model].family if model else None


def judge_requests(study: Study, judge: str) -> RequestsRun:
    """How requests to a judge are made."""
    return study.run.judges.get(judge, RequestsRun(timeout=60))


def rate_traces(study: Study, words: Mapping[str, str]) -> Job:
    name = words["judge"]
    judge, model = study.judges[name], judge_model(study, name)
    labels = judge.endpoint.path if isinstance(judge.endpoint, FileEndpoint) else None
    return Job(
        {
            "traces": paths.TRACES.format(**words),
            "manifest": base(study, model) if model else [],
            "labels": labels or [],
        },
        RatingsSettings(judge=name, settings=judge, dtype=inference(study, model).dtype if model else "auto"),
        RatingsRun(requests=judge_requests(study, name), model=model_run(study, model)),
        server_modules(None if labels else judge.endpoint.kind),
    )
