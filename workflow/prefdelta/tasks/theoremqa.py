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

import sympy
from math_verify.errors import TimeoutException
from math_verify.utils import timeout

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks.common import MathTask, ask, parsed

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
        kept = []
        for row in load_rows(source, ["Question", "Answer", "Answer_type", "Picture"]):
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

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether ``answer`` is right for the type of its reference. Must run in the main thread."""
        if answer is None:
            return False
        kind = json.loads(reference)["type"]
        right = expected(json.loads(reference)["answer"], kind)
        if not isinstance(right, list):
            return (TRUTH.get(_plain(answer)) if kind == "bool" else _option(answer)) == right
        parts = _parts(answer) if kind.startswith("list") else [answer]
        stated = [value for part in parts if (value := number(part)) is not None]
        return len(stated) == len(parts) == len(right) and all(
            abs(value - one) <= TOLERANCE * abs(one) if "float" in kind else round(value) == one
            for value, one in zip(sorted(stated), sorted(right), strict=True)
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
    """The real number that ``text`` states (a literal such as 1e-3, or LaTeX), None where it states none."""
    try:
        value = float(_plain(text).replace(",", ""))
    except ValueError:
        expressions = [part for part in parsed(text) if isinstance(part, sympy.Basic)]
        if not expressions:
            return None
        stated = expressions[0].rhs if isinstance(expressions[0], sympy.Eq) else expressions[0]  # x = 3 states 3
        try:
            value = float(timeout(5)(lambda: stated.doit().evalf())())
        except (Exception, TimeoutException):  # whatever sympy makes of a text that is no number
            return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return _WRAPPER.sub(r"\1", text).strip().strip(".$").strip().lower()


def _option(text: str) -> str:
    found = re.match(r"\(?([a-z])\)?(?![a-z0-9])", _plain(text))
    return found[1] if found else ""


def _parts(text: str) -> list[str]:
    """The entries of a list, in brackets of any kind or none."""
    text = text.replace("{,}", "").strip()  # thousands separators of LaTeX
    found = _BRACKETS.fullmatch(text)
    return [part.strip() for part in (found[1] if found else text).split(",") if part.strip()]
