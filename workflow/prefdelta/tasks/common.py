"""What benchmarks share: the instruction, the boxed answer, and scoring of mathematics by math-verify."""

import functools
from collections.abc import Sequence
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import TaskError, grade_each

# The wording is ours, after what the cards of DeepSeek-R1 and Qwen recommend for mathematics.
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

TAIL = 500  # characters: where an answer without a box is looked for
# Only what is announced as the answer: else any number of an unfinished text would be one.
_STATED = [LatexExtractionConfig(try_extract_without_anchor=False), ExprExtractionConfig(try_extract_without_anchor=False)]


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


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` whose braces balance and that is not empty, else None. ``\{`` is no brace."""
    start = len(text)
    while (start := text.rfind("\\boxed", 0, start)) >= 0:
        opening = start + len("\\boxed")
        while text[opening : opening + 1].isspace():
            opening += 1
        if (content := _braced(text, opening)) and content.strip():
            return content.strip()
    return None


def _braced(text: str, opening: int) -> str | None:
    if text[opening : opening + 1] != "{":
        return None
    depth, place = 0, opening
    while place < len(text):
        if text[place] == "\\":
            place += 1  # the next character is escaped
        elif text[place] in "{}":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return text[opening + 1 : place]
        place += 1
    return None


@functools.lru_cache(maxsize=4096)
def parsed(answer: str) -> tuple[Any, ...]:
    """What math-verify reads in ``answer``: a sympy expression and its text, or the text alone, or nothing. At most 5 s."""
    return tuple(parse(f"\\boxed{{{answer}}}", [LatexExtractionConfig()]))


class MathTask:
    """A task whose answers are mathematics. The data have the columns ``problem`` and ``answer`` (LaTeX without dollar signs)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["problem", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The problem with the instruction, and the answer."""
        return ask(row["problem"]), str(row["answer"])

    def extract(self, response: str) -> str | None:
        """The last boxed answer, else what math-verify finds announced as the answer at the end, else None."""
        if (boxed := last_boxed(response)) is not None:
            return boxed
        found = parse(response[-TAIL:], _STATED)
        return str(found[-1]).strip() or None if found else None

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether ``answer`` equals ``reference``, as texts or by math-verify (5 s at most), whose rules for units, sets and
        rounding hold. Must run in the main thread."""
        if answer is None:
            return False
        if _bare(answer) == _bare(reference):
            return True
        return bool(verify(list(parsed(_bare(reference))), list(parsed(_bare(answer)))))

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[tuple[str | None, bool]]:
        """One by one, in the main thread."""
        return grade_each(self, responses, references)


def _bare(answer: str) -> str:
    return answer.strip().rstrip(".").strip()
