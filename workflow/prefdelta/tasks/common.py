"""What benchmarks share: the instruction, the boxed answer, and scoring of mathematics by math-verify."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import Grade, TaskError, workers
from prefdelta.tasks.latex import last_boxed, option, quantity, spelled, words

# The wording is ours, after what the cards of DeepSeek-R1 and Qwen recommend for mathematics.
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

_MARKED = re.compile(r"^#{4}\s*+(\S.*)$", re.MULTILINE)  # as in the solutions of GSM8K
_DECIMAL = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)")
_IN_BASE = re.compile(r"-?[\dA-Fa-f]+_(?:\{\d+\}|\d)")
_INTEGER = re.compile(r"-?\d{1,1000}")
TAIL = 500  # characters: where an answer without a box is looked for
# math-verify's own, but for its dropping of what it takes for units: that is done by `quantity`.
_AS_IT_IS = dataclasses.replace(LatexExtractionConfig().normalization_config, units=False)
# Only what is announced as the answer: else any number of an unfinished text would be one.
_ANNOUNCED = [
    LatexExtractionConfig(try_extract_without_anchor=False, normalization_config=_AS_IT_IS),
    ExprExtractionConfig(try_extract_without_anchor=False),
]


def ask(problem: str, instruction: str = INSTRUCTION) -> str:
    """The prompt of a problem: its text and what is to be done, without examples."""
    return f"{problem.strip()}\n\n{instruction}"


def integer(name: str, value: Any) -> str:
    """``value`` (such as 33.0 or '033') as an integer without leading zeros. Raises TaskError for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.5
    if not number.is_integer():
        raise TaskError(f"{name}: the answer {value!r} is no integer")
    return str(int(number))


@functools.lru_cache(maxsize=4096)
def parsed(answer: str) -> tuple[Any, ...]:
    """What math-verify reads in ``answer``: a sympy expression and its text, or the text alone, or nothing. It may never end."""
    return tuple(parse(f"\\boxed{{{answer}}}", [LatexExtractionConfig(normalization_config=_AS_IT_IS)], parsing_timeout=None))


def equal(answer: str, reference: str) -> bool:
    """Whether two answers are the same by math-verify, whose rules for sets and rounding hold. It may never end."""
    return bool(verify(list(parsed(reference)), list(parsed(answer)), timeout_seconds=None))


def real(text: str) -> float | None:
    """The real number that math-verify reads in ``text``, None where it reads none. It may never end."""
    expressions = [part for part in parsed(spelled(text)) if isinstance(part, sympy.Basic)]
    if not expressions:
        return None
    stated = expressions[0].rhs if isinstance(expressions[0], sympy.Eq) else expressions[0]  # x = 3 states 3
    try:
        value = float(stated.doit().evalf())
    except Exception:  # whatever sympy makes of a text that is no number
        return None
    return value if math.isfinite(value) else None


class MathTask:
    """A task whose answers are mathematics. The data have the columns ``problem`` and ``answer`` (LaTeX without dollar signs)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["problem", "answer"], ["problem", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The problem with the instruction, and the answer."""
        return ask(row["problem"]), str(row["answer"])

    def extract(self, response: str) -> str | None:
        """The last boxed answer, else what follows ``####``, else what math-verify finds announced as the answer at the end, else
        None. The last of these may take long."""
        answer = _marked(response)
        if answer is not None or not _announces(response):
            return answer
        found = parse(response[-TAIL:], _ANNOUNCED, parsing_timeout=None)
        return str(found[-1]).strip().strip("*").strip() or None if found else None

    def plainly(self, answer: str, reference: str) -> bool | None:
        """Whether ``answer`` is right where that is plain to see, as of equal texts, integers, words and options; else None."""
        if _compact(answer) == _compact(reference):
            return True
        if quantity(answer).differs(quantity(reference)):
            return False
        ours, theirs = spelled(answer), spelled(reference)
        if ours == theirs:
            return True
        if _INTEGER.fullmatch(ours) and _INTEGER.fullmatch(theirs):
            return int(ours) == int(theirs)
        if (letter := option(reference)) and letter == option(answer) and (len(answer) > 1 or len(reference) > 1):
            return True  # alone, i and I are variables
        numbers = [re.sub(r"\\?%$", "", text).rstrip() for text in (ours, theirs)]
        if _DECIMAL.fullmatch(numbers[0]) and numbers[0] == numbers[1]:
            return True  # 50 % and 50; that it is also 0.5 is for math-verify to say
        if _IN_BASE.fullmatch(ours) and _IN_BASE.fullmatch(theirs):
            return False  # math-verify would take no notice of the bases
        if (":" in ours) != (":" in theirs):
            return False  # math-verify would divide
        ours_in_words, theirs_in_words = words(answer), words(reference)
        return ours_in_words == theirs_in_words if ours_in_words and theirs_in_words else None

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether ``answer`` equals ``reference``. None is wrong. It may never end: see `workers`."""
        if answer is None:
            return False
        plain = self.plainly(answer, reference)
        return equal(spelled(answer), spelled(reference)) if plain is None else plain

    def graded(self, response: str, reference: str) -> Iterator[str | bool | None]:
        """Yields the answer and whether it is right."""
        answer = self.extract(response)
        yield answer
        yield self.score(answer, reference)

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """In `workers`, but for what is plain to see."""
        grades: list[Grade | None] = []
        for response, reference in zip(responses, references, strict=True):
            answer = _marked(response)
            if answer is None:
                grades.append(None if _announces(response) else (None, False))
            else:
                plain = self.plainly(answer, reference)
                grades.append(None if plain is None else (answer, plain))
        left = [place for place, grade in enumerate(grades) if grade is None]
        asked = [(responses[place], references[place]) for place in left]
        found = dict(zip(left, workers.work(self.name, "graded", asked, threads), strict=True))
        return [grade or _padded(found[place]) for place, grade in enumerate(grades)]


def _compact(answer: str) -> str:
    """``answer`` without the spaces after commas and between a number and what is multiplied by it."""
    return re.sub(r"(?<=\d) +(?=[A-Za-z\\])|(?<=,) +", "", answer.strip())


def _marked(response: str) -> str | None:
    """The last boxed answer, else what follows the last ``####``."""
    if (boxed := last_boxed(response)) is not None:
        return boxed
    marked = _MARKED.findall(response)
    return str(marked[-1]).rstrip() if marked else None


def _announces(response: str) -> bool:
    """Whether math-verify can find an answer that is announced: its patterns all begin with that word."""
    return "answer" in response[-TAIL:].lower()


def _padded(yielded: list[Any]) -> Grade:
    answer, correct = (*yielded, None, None)[:2]
    return answer, correct
