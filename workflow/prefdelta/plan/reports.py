"""Plans of pages: the answers, and the report."""

from collections.abc import Mapping

from prefdelta.answers.settings import AnswersSettings
from prefdelta.plan.findings import figure, profile_pairs, table
from prefdelta.plan.job import Job
from prefdelta.study import paths
from prefdelta.study.experiments import RESERVED
from prefdelta.study.study import Study


def render_answers(study: Study, words: Mapping[str, str]) -> Job:
    figures: dict[str, list[str]] = {}
    for name, experiment in study.experiments.items():
        shown = [name, "regressions"] if experiment.figure == "grid" else [name]
        figures[experiment.question] = figures.get(experiment.question, []) + shown
    names = [*study.experiments, "regressions", "judge_audit", "prediction", *_again(study)]
    settings = AnswersSettings(study=study.study, suite=study.answered_suite, figures=figures)
    return Job({"claims": table(study, "claims"), "figures": {name: figure(study, name) for name in names}}, settings)


def _again(study: Study) -> list[str]:
    """What only a study has that replicates another one."""
    return ["replication"] if study.replicates else []


def reported(study: Study) -> list[str]:
    """Everything that the report shows."""
    figures = [*study.experiments, "capability", "judge_audit", "balance", "whatif", *_again(study)]
    tables = [*study.experiments, *(name for name in RESERVED if name != "replication"), *_again(study)]
    profiles = [name for name in study.experiments if name not in study.trained]
    pages = [file.replace(".parquet", ".html") for name in profiles for file in profile_pairs(study, name).values()]
    return [
        paths.ANSWERS.format(study=study.study),
        *(figure(study, name) for name in figures),
        *(figure(study, name).replace(".png", ".rst") for name in figures),  # their captions
        *(table(study, name) for name in tables),
        *dict.fromkeys(pages),
    ]


def render_report(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"shown": reported(study)})
