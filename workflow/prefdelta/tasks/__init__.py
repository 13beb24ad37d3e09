"""Benchmarks: how a task's rows are loaded, put to a model, and its answers read and scored. A module each.

The modules are imported by name and never by each other's users, so that an edit to one benchmark concerns its own jobs only.
"""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

from prefdelta.run.by_name import load
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.sources import BENCHMARKS, CORPORA, DOMAINS, BenchmarkSource, CorpusSource, OwnItems, OwnPrompts

log = logging.getLogger(__name__)


class TaskError(PrefdeltaError):
    """A task or its data are not what is expected; the message names it."""


# (answer, correct) of a response: the final answer as it is stated, None where there is none, which is wrong. ``correct`` is None
# where the grade could not be reached within limits of processor time: nobody knows whether the answer is right.
Grade = tuple[str | None, bool | None]


class Task(Protocol):
    """What every module of this package calls ``Task`` and builds as ``Task(name)``."""

    def load(self, source: BenchmarkSource | OwnItems) -> list[dict[str, Any]]:
        """The rows of ``source`` that are items of this task."""

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The prompt (a user message) and the reference that `grade` needs: a string, JSON where it has parts."""

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """The grade of each response."""


class Single(Protocol):
    """A task that grades each response by itself."""

    def extract(self, response: str) -> str | None:
        """The final answer as ``response`` states it, None where it states none."""

    def score(self, answer: str | None, reference: str) -> bool | None:
        """Whether ``answer`` is right, None where that is unknown. No answer is wrong."""


def module_name(name: str) -> str:
    """The module of this package that has the task ``name``; ``lm_eval:xyz`` is the task ``xyz`` of lm-eval, any other name that
    is not known one of problems of one's own."""
    if name.startswith("lm_eval:"):
        return "lm_eval"
    return "microworld" if name in DOMAINS else name if name in (*BENCHMARKS, *CORPORA) else "own_problems"


def find(name: str) -> Task:
    """The task ``name``, which a study's checks have found to be one."""
    task: Task = load(__name__, module_name(name)).Task(name)
    return task


def prompt_id(name: str, prompt: str) -> str:
    """The key of a problem of the task ``name``: the same prompt has the same one, wherever it comes from."""
    return hashlib.blake2b(f"{name}\n{prompt}".encode(), digest_size=8).hexdigest()


def items(name: str, source: BenchmarkSource | OwnItems, split: str) -> list[dict[str, str]]:
    """The items of the task ``name``: rows of the `Prompts` table of ``split``, sorted by prompt_id.

    Rows with the same prompt are one item. With ``source.n``, at most that many, chosen by a hash of their texts: a larger
    ``n`` keeps those of a smaller one. Raises TaskError where there are none, DatasetError where the data can't be read.
    """
    task = find(name)
    rows: dict[str, dict[str, str]] = {}
    contradictions = 0
    for row in task.load(source):
        prompt, answer = task.render(row)
        key = prompt_id(name, prompt)
        item = {"prompt_id": key, "split": split, "task": name, "prompt": prompt, "answer": answer}
        contradictions += rows.setdefault(key, item)["answer"] != answer
    if contradictions:
        log.warning("%s: %d rows repeat a prompt with another answer; the first one counts", name, contradictions)
    if not rows:
        raise TaskError(f"{name}: no items are left of {source.repo}")
    chosen = sorted(rows)
    if source.n:
        # Not by prompt_id itself, which is what a person may sort and cut by.
        chosen = sorted(sorted(rows, key=lambda key: hashlib.blake2b(key.encode()).digest())[: source.n])
    log.info("%s: %d items", name, len(chosen))
    return [rows[key] for key in chosen]


class Corpus(Protocol):
    """A task whose problems are trained on."""

    def load(self, source: CorpusSource | OwnPrompts) -> list[dict[str, Any]]:
        """The rows of ``source``."""

    def filtered(
        self, rows: list[dict[str, Any]], source: CorpusSource | OwnPrompts
    ) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Problems that are kept (prompt_id, task, prompt, answer) and left out (prompt_id, task, prompt, reason, detail)."""


def problems(name: str, source: CorpusSource | OwnPrompts) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The training problems of the corpus ``name`` that are fit, and those that are not (see `Corpus.filtered`)."""
    corpus = cast(Corpus, find(name))
    return corpus.filtered(corpus.load(source), source)


def score_all(name: str, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
    """The grade of each response to the task ``name``, in as many as ``threads``, on which no grade depends.

    Must run in the main thread, which sees to it that processes end.
    """
    grades = find(name).grade(responses, references, threads)
    if ungraded := sum(correct is None for _, correct in grades):
        log.warning("%s: %d of %d answers are ungraded", name, ungraded, len(grades))
    return grades


def grade_each(task: Single, responses: Sequence[str], references: Sequence[str], threads: int = 1) -> list[Grade]:
    """`Task.grade` by ``task``'s extract and score; with more than one of ``threads``, in as many."""
    answers = [task.extract(response) for response in responses]
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            correct = list(pool.map(task.score, answers, references))
    else:
        correct = [task.score(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return list(zip(answers, correct, strict=True))
