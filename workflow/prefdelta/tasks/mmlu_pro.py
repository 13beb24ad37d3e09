"""MMLU-Pro: TIGER-Lab/MMLU-Pro (columns question, options, answer). Up to ten options; Wang et al., arXiv 2406.01574.

Zero-shot with our wording, where the authors' own harness shows five worked examples: reasoning models are asked so.
"""

import re
from collections.abc import Sequence
from typing import Any

from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import Grade, TaskError, grade_each
from prefdelta.tasks.common import ask
from prefdelta.tasks.latex import last_boxed, unwrapped

LETTERS = "ABCDEFGHIJ"
INSTRUCTION = "Please reason step by step, and put the letter of the correct option within \\boxed{}."

_LEAD = re.compile(
    r"(?:(?:the|my|correct|right|best|final|answer|option|choice)\s+|(?:answer|option|choice)\s*(?:is|:)\s*|is\s+)+", re.I
)
_SEVERAL = re.compile(r"\(?[A-J]\)?\s*(?:,|/|&|\bx?or\b|\band\b)\s*(?:option\s+|choice\s+)?\(?[A-J]\b")
# A letter by itself; or before its option's text, where a mark shows that it is no word.
_CHOICE = re.compile(
    r"[\[({]?\s*([A-Ja-j])\s*[\])}.:]?|\(\s*([A-Ja-j])\s*\)\W*\s.*|([A-J])\s*(?:[.):]|\s[-\u2013\u2014]|\s*\().*", re.DOTALL
)
# What announces an answer: here the letter must be the last word of its clause. The last such statement counts.
_ANNOUNCED = re.compile(
    r"\b(?:answer|(?:correct|right|best|final)\s+(?:option|choice))\b(?:\s+(?:option|choice))?[*_\s]*(?:is\b|:|\n)[\s:*_]*"
    r"(?:(?:the\s+)?(?:option|choice|letter)\b[\s:*_]*)?"
    r"(?P<open>[(\[{\"'`]?)\s*(?P<letter>[A-J])\s*(?P<close>[)\]}\"'`]?)[*_]*"
    r"(?:(?=[.:,;!?](?:\s|\*|$)|\s*$|\s*\n|\s*[(\u2013\u2014]|\s+-\s|\s+(?:because|since|as|for|which|with)\b)|(?<=[)\]}]))",
    re.IGNORECASE,
)


def _is_choice(found: re.Match[str]) -> bool:
    """A small letter without brackets is one only at the end of its line."""
    return found["letter"].isupper() or bool(found["close"]) or not found.string[found.end() :].strip(" .*").partition("\n")[0]


class Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["question", "options", "answer"], ["question", "options", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The question with its lettered options; the reference is a letter. Raises TaskError where it names no option."""
        options = dict(zip(LETTERS, row["options"], strict=False))
        if row["answer"] not in options or len(row["options"]) > len(LETTERS):
            raise TaskError(f"{self.name}: the answer {row['answer']!r} is none of the options of {row['question']!r}")
        lines = [row["question"].strip(), "", *(f"{letter}. {option.strip()}" for letter, option in options.items())]
        return ask("\n".join(lines), INSTRUCTION), row["answer"]

    def extract(self, response: str) -> str | None:
        r"""The letter of the last box, by itself or before its option's text, as in ``\boxed{C}``, ``\boxed{\text{(c)}}`` or
        ``\boxed{C. Four}``; without a box that of the last "answer is (C)" or "Answer: C"; else None.

        A word is no letter: neither "A lot of energy" nor "The answer is I think B" chooses an option.
        """
        if (boxed := last_boxed(response)) is not None:
            text = _LEAD.sub("", unwrapped(boxed), count=1).strip()
            found = None if _SEVERAL.match(text) else _CHOICE.fullmatch(text)
            return next(filter(None, found.groups())).upper() if found else None
        text = "\n".join(unwrapped(line) for line in response.splitlines())
        stated = [
            found for found in _ANNOUNCED.finditer(text) if _is_choice(found) and not _SEVERAL.match(text, found.start("letter"))
        ]
        return stated[-1]["letter"].upper() if stated else None

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether it is the same letter."""
        return answer == reference

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """One by one, in the main thread."""
        return grade_each(self, responses, references)
