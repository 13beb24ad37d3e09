"""TheoremQA: TIGER-Lab/TheoremQA (columns Question, Answer, Answer_type, Picture). Chen et al., arXiv 2305.12524.

Items with a picture are left out. Numbers are compared as the authors do (predict_accuracy.py of github.com/wenhuchen/TheoremQA):
within 4 % of a float, rounded for an integer, sorted for a list. How an answer is read is ours.
"""

import ast
import json
import logging
import math
import re
from typing import Any

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks.common import MathTask, ask, real
from prefdelta.tasks.latex import spelled

log = logging.getLogger(__name__)

TOLERANCE = 0.04
INSTRUCTIONS = {
    "bool": "put your final answer, True or False, within \\boxed{}",
    "option": "put the letter of the correct option, such as (a), within \\boxed{}",
    "integer": "put your final answer, an integer, within \\boxed{}",
    "float": "put your final answer, a decimal number without unit, within \\boxed{}",
    "list of integer": "put your final answer, a list such as [1, 2], within \\boxed{}",
    "list of float": "put your final answer, a list such as [1.5, 2.5], within \\boxed{}",
}
TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_BRACKETS = re.compile(r"(?:\\left\s*)?\\?[\[({](.*?)(?:\\right\s*)?\\?[\])}]", re.DOTALL)


class Task(MathTask):
    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source`` without a picture whose answer is of its type; others are logged. Raises DatasetError."""
        kept, needed = [], ["Question", "Answer", "Answer_type"]
        for row in load_rows(source, [*needed, "Picture"], needed):
            if not row["Picture"]:
                try:
                    expected(str(row["Answer"]), row["Answer_type"].lower())
                except (KeyError, ValueError, SyntaxError):
                    log.warning("%s: left out, as %r is no %s: %s", self.name, row["Answer"], row["Answer_type"], row["Question"])
                else:
                    kept.append(row)
        return kept

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The reference is JSON of the answer and its type."""
        kind = row["Answer_type"].lower()
        reference = json.dumps({"answer": str(row["Answer"]), "type": kind})
        return ask(row["Question"], f"Please reason step by step, and {INSTRUCTIONS[kind]}."), reference

    def plainly(self, answer: str, reference: str) -> bool | None:
        """Whether ``answer`` is right where it is no number, or numbers that are plain literals; else None."""
        right, kind = _right(reference)
        if not isinstance(right, list):
            return (TRUTH.get(_plain(answer)) if kind == "bool" else _option(answer)) == right
        stated = [_literal(part) for part in _parts(answer, kind)]
        return None if None in stated else _within_tolerance(stated, right, kind)

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether ``answer`` is right for the type of its reference. It may never end: see `workers`."""
        if answer is None:
            return False
        if (plain := self.plainly(answer, reference)) is not None:
            return plain
        right, kind = _right(reference)
        assert isinstance(right, list)
        return _within_tolerance([number(part) for part in _parts(answer, kind)], right, kind)


def _right(reference: str) -> tuple[bool | str | list[float], str]:
    parts = json.loads(reference)
    return expected(parts["answer"], parts["type"]), parts["type"]


def _within_tolerance(stated: list[float | None], right: list[float], kind: str) -> bool:
    known = [value for value in stated if value is not None]
    return len(known) == len(stated) == len(right) and all(
        abs(value - one) <= TOLERANCE * abs(one) if "float" in kind else round(value) == one
        for value, one in zip(sorted(known), sorted(right), strict=True)
    )


def expected(answer: str, kind: str) -> bool | str | list[float]:
    """The right answer as its type says. Raises KeyError, ValueError or SyntaxError where it is none of that type."""
    if kind == "bool":
        return TRUTH[_plain(answer)]
    if kind == "option":
        if not (letter := _option(answer)):
            raise ValueError(answer)
        return letter
    INSTRUCTIONS[kind]
    value = ast.literal_eval(answer)
    return [float(one) for one in (value if isinstance(value, list | tuple) else [value])]


def number(text: str) -> float | None:
    """The real number that ``text`` states (a literal such as 1e-3, or LaTeX), None where it states none. It may never end."""
    return real(text) if (literal := _literal(text)) is None else literal


def _literal(text: str) -> float | None:
    try:
        value = float(_plain(spelled(text)).replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return _WRAPPER.sub(r"\1", text).strip().strip(".$").strip().lower()


def _option(text: str) -> str:
    found = re.match(r"\(?([a-z])\)?(?![a-z0-9])", _plain(text))
    return found[1] if found else ""


def _parts(text: str, kind: str) -> list[str]:
    """The entries of a list, in brackets of any kind or none; or the one number that is asked for."""
    if not kind.startswith("list"):
        return [text]
    text = text.replace("{,}", "").strip()  # thousands separators of LaTeX
    found = _BRACKETS.fullmatch(text)
    return [part.strip() for part in (found[1] if found else text).split(",") if part.strip()]
