"""Tasks of lm-eval (0.4.13), named ``lm_eval:<task>``: those that generate text and whose metric is 0 or 1 for each item.

The prompt is the context that lm-eval builds (description, examples, question), as one user message. The reference holds what its
stop sequences, filters and metric need, so grading loads no data set. The answer is what the filter makes of a response.

The data come from the source's ``repo``, ``revision``, ``config`` (default: the task's) and ``files``, not from the task's
``dataset_path``; the splits are the task's. A row with a null that would stand in a prompt or answer is left out. Further
options of the source: ``include_path``, a folder whose YAML files are used instead of lm-eval's own; ``filter`` and ``metric``,
which must be named where the task has several.
"""

import contextlib
import json
import logging
import math
import random
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import datasets
import lm_eval.tasks
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._factory import TaskFactory  # what builds a task by YAML file with changes; TaskManager has no way to
from lm_eval.tasks._index import Entry, Kind

from prefdelta.data.dataset import DatasetError, is_empty, load_split, whole_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import Grade, TaskError

OWN = Path(lm_eval.tasks.__file__).parent
NOT_FOUND = "[invalid]"  # what lm-eval's filters give by default
MARK = "\ue000"  # a character that is in no text (of a private use area)
LIMITS = (1, 6)  # times a metric's own limit, and what it is when it is tried again
SEEDS = {"random": 0, "fewshot": 1234}  # lm-eval's defaults

# It warns each time that a task is built on other data than its own, which is what happens here.
logging.getLogger("lm_eval").setLevel(logging.ERROR)


@contextlib.contextmanager
def _processor_time(factor: int) -> Iterator[list[float]]:
    """Within it a limit that is set by ``signal.alarm`` is ``factor`` times as long, and of processor time: else a grade would
    depend on how busy the machine is. Yields the limits that were reached."""
    passed: list[float] = []
    limits: list[float] = []

    def alarm(seconds: float) -> int:
        limits.append(factor * seconds)
        return math.ceil(signal.setitimer(signal.ITIMER_PROF, factor * seconds)[0])

    def reached(_: int, frame: FrameType | None) -> None:
        passed.append(limits[-1])
        handler = signal.getsignal(signal.SIGALRM)
        if callable(handler):
            handler(signal.SIGALRM, frame)

    before, signal.alarm = signal.alarm, alarm
    handler = signal.signal(signal.SIGPROF, reached)
    try:
        yield passed
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        signal.alarm = before


class _Splits(dict[str, datasets.Dataset]):
    """The splits of a source, each loaded when it is asked for: most tasks need one of several."""

    def __init__(self, source: BenchmarkSource) -> None:
        super().__init__()
        self.source = source

    def __missing__(self, split: str) -> datasets.Dataset:
        # In memory, since a task's shuffled options (GPQA) would else depend on whether `datasets` finds them in its cache.
        self[split] = load_split(self.source, split, in_memory=True)
        return self[split]


class Task:
    def __init__(self, name: str) -> None:
        self.name = name
        self.task_name = name.removeprefix("lm_eval:")

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """Rows with the prompt and the reference of each item. Raises DatasetError, and TaskError for an unfit task."""
        folder = Path(source.include_path) if source.include_path else OWN
        entry = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False).task_index.get(self.task_name)
        if entry is None or entry.yaml_path is None or entry.kind is not Kind.TASK:
            what = "is unknown" if entry is None else f"is a {entry.kind.name.lower()}, not a single task in YAML"
            raise TaskError(f"{self.name} {what} (searched: {folder if folder != OWN else 'the tasks of lm-eval'})")
        self._check(entry.cfg)
        splits = _Splits(source.model_copy(update={"config": source.config or entry.cfg.get("dataset_name")}))
        random.seed(SEEDS["random"])
        try:
            task = _build(entry.yaml_path, custom_dataset=lambda **_: splits)
        except (LookupError, TypeError, AssertionError, TemplateError) as error:
            # What a task's own functions and templates raise for no data, data of another schema, or a package that is missing.
            raise DatasetError(f"{self.name} can't be built on {source.repo}: {error!r} (has it the task's columns?)") from error
        choice = {
            "filter": self._choose("filter", [ensemble.name for ensemble in task._filters], source.filter),
            "metric": self._choose("metric", list(task.aggregation()), source.metric),
        }
        place = {
            "include_path": source.include_path,
            "yaml": str(entry.yaml_path.relative_to(folder)),
            "multiple_target": task.multiple_target,
        }
        task.set_fewshot_seed(SEEDS["fewshot"])
        config = task.config
        docs = _whole(list(task.task_docs), task, source, config.test_split or config.validation_split)
        if config.num_fewshot:
            task.sampler.replace_df(_whole(task.sampler.df, task, source, config.fewshot_split or config.training_split))
        rows = []
        for doc in docs:
            prompt = task.fewshot_context(doc, task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(doc))
            if not isinstance(prompt, str):
                raise TaskError(f"{self.name}: an item has several contexts; only tasks with one prompt for an item can be used")
            try:
                rows.append({"prompt": prompt, "reference": json.dumps({**place, **choice, "doc": doc}, sort_keys=True)})
            except TypeError:
                raise TaskError(f"{self.name}: its items hold more than text and numbers, such as images") from None
        # A metric that is not 0 or 1 should show before anything is generated.
        targets = [str(task.doc_to_target(doc)) for doc in docs[:3]]
        for trial in (targets, [target[: len(target) // 2] for target in targets]):
            self.grade(trial, [row["reference"] for row in rows[:3]], 1)
        return rows

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The context and what grading needs."""
        return row["prompt"], row["reference"]

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """The task's filter and metric for each response up to the first stop sequence, None where the filter finds nothing.

        A metric's own limits (those that compare mathematics have some) count processor time. Where one is reached, also when
        it is tried again with more, ``correct`` is None. Not limited is what Python signals do not interrupt. The references
        must be those of one `load`. Raises TaskError where the metric is neither 0 nor 1.
        """
        parts = [json.loads(reference) for reference in references]
        first = parts[0]
        task = _of_one_item(Path(first["include_path"] or OWN) / first["yaml"], first["doc"])
        task.multiple_target = first["multiple_target"]
        until = task.config.generation_kwargs["until"]
        stop = re.compile("|".join(re.escape(text) for text in ([until] if isinstance(until, str) else until) if text) or "(?!)")
        instances = [
            Instance("generate_until", part["doc"], (), 0, resps=[stop.split(response, maxsplit=1)[0]])
            for response, part in zip(responses, parts, strict=True)
        ]
        # All at once: some filters take long to start.
        next(ensemble for ensemble in task._filters if ensemble.name == first["filter"]).apply(instances)
        grades: list[Grade] = []
        for instance in instances:
            found = instance.filtered_resps[first["filter"]]
            for factor in LIMITS:
                with _processor_time(factor) as passed:
                    value = task.process_results(instance.doc, [found])[first["metric"]]
                if not passed:
                    break
            if not isinstance(value, int | float) or value not in (0, 1):
                raise TaskError(f"{self.name}: the metric '{first['metric']}' gives {value!r} for an item; it must be 0 or 1")
            answer = found if isinstance(found, str) else json.dumps(found)
            grades.append((None if answer.strip() in ("", NOT_FOUND) else answer, None if passed else value == 1))
        return grades

    def _choose(self, what: str, names: list[str], given: str | None) -> str:
        name = given or (names[0] if len(names) == 1 else None)
        if name not in names:
            fault = f"it has no {what} '{name}'" if name else f"it has {len(names)} {what}s"
            raise TaskError(f"{self.name}: {fault}; set `{what}` in its source to one of {', '.join(names)}")
        return name

    def _check(self, config: dict[str, Any]) -> None:
        if config.get("output_type", "generate_until") != "generate_until":
            raise TaskError(f"{self.name} has the output type {config['output_type']}; only generate_until can be used")
        if config.get("unsafe_code"):
            raise TaskError(f"{self.name} runs code of models in its own process; use livecodebench, which has a sandbox")
        if config.get("doc_to_image") or config.get("doc_to_audio"):
            raise TaskError(f"{self.name} asks about images or sounds; only text can be used")


def _whole(docs: list[dict[str, Any]], task: ConfigurableTask, source: BenchmarkSource, split: str) -> list[dict[str, Any]]:
    """Those of ``docs`` that are prompts, or examples in them, without a null. Raises DatasetError where many are not."""
    where = source.model_copy(update={"split": split})
    return whole_rows(docs, where, lambda doc: _lacking(task, doc), "have nothing in what prompts and answers are made of")


def _lacking(task: ConfigurableTask, doc: dict[str, Any]) -> list[str]:
    """The columns of ``doc`` that are null and would stand as "None" or "nan" in its prompt or answer, or empty in its answer."""
    return [
        name
        for name, value in doc.items()
        if is_empty(value)
        and (_shows(task.doc_to_target, doc, name) or (not isinstance(value, str) and _shows(task.doc_to_text, doc, name)))
    ]


def _shows(made: Callable[[dict[str, Any]], Any], doc: dict[str, Any], column: str) -> bool:
    """Whether what is ``made`` of ``doc`` holds the text of its ``column``, which may also only choose between forms."""
    try:
        marked = str(made(doc | {column: MARK}))
    except Exception:  # of a task's own function, which may want a number there
        return False
    return MARK in marked and marked.replace(MARK, str(doc[column])).strip() == str(made(doc)).strip()


def _build(yaml: Path, **changes: Any) -> ConfigurableTask:
    return TaskFactory().build(Entry(yaml.stem, Kind.TASK, yaml), overrides=changes, registry={})


def _of_one_item(yaml: Path, doc: dict[str, Any]) -> ConfigurableTask:
    """The task as if ``doc``, which it has processed already, were all its data."""
    data = {"test": datasets.Dataset.from_list([doc])}
    splits = {"training_split": None, "validation_split": None, "test_split": "test", "fewshot_split": None}
    return _build(yaml, custom_dataset=lambda **_: data, process_docs=None, fewshot_config=None, num_fewshot=0, **splits)
