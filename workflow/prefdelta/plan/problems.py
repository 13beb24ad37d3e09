"""Plans of problems: evaluation items and training prompts."""

from collections.abc import Mapping
from pathlib import Path

from prefdelta.generate.settings import ItemsSettings, PromptsSettings
from prefdelta.plan.job import Job
from prefdelta.study import paths
from prefdelta.study.sources import BenchmarkSource, ProblemsSource, Source
from prefdelta.study.study import Study
from prefdelta.tasks import module_name


def local_files(*places: str | None) -> list[str]:
    """The files of ``places`` that are local: a file itself, or all files within a folder. A hub id is neither."""
    found: list[Path] = []
    for place in places:
        path = Path(place) if place else None
        if path and path.is_dir():
            found += [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        elif path and path.is_file():
            found.append(path)
    return [str(file) for file in sorted(found)]


def task_modules(tasks: Mapping[str, object]) -> tuple[str, ...]:
    """The modules of tasks, which are started by name."""
    return tuple(sorted({f"prefdelta.tasks.{module_name(name)}" for name in tasks}))


def _task_folders(tasks: Mapping[str, int | Source]) -> list[str | None]:
    return [source.include_path for source in tasks.values() if isinstance(source, BenchmarkSource)]


def _data(tasks: Mapping[str, int | Source]) -> list[str]:
    """The local files that sources name."""
    repos = [source.repo for source in tasks.values() if isinstance(source, Source)]
    examples = [source.examples for source in tasks.values() if isinstance(source, ProblemsSource)]
    return local_files(*repos, *examples, *_task_folders(tasks))


def suites(study: Study) -> list[str]:
    """The items of every suite."""
    return [paths.PROMPTS.format(study=study.study, split=suite) for suite in study.suites]


def task_files(study: Study) -> list[str]:
    """The files of tasks that suites name, which say how answers are graded."""
    return local_files(*(folder for tasks in study.suites.values() for folder in _task_folders(tasks)))


def make_items(study: Study, words: Mapping[str, str]) -> Job:
    tasks = study.suites[words["split"]]
    operations = study.suite_operations.get(words["split"], study.operations)
    settings = ItemsSettings(split=words["split"], tasks=tasks, operations=operations, seed=study.seed)
    return Job({"data": _data(tasks)}, settings, starts=task_modules(tasks))


def make_prompts(study: Study, words: Mapping[str, str]) -> Job:
    settings = PromptsSettings(
        tasks=study.prompts, operations=study.operations, seed=study.seed, ngram=study.decontamination_ngram
    )
    return Job({"suites": suites(study), "data": _data(study.prompts)}, settings, starts=task_modules(study.prompts))
