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
_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})
# Two letters, unless the second one is said to be wrong.
_SEVERAL = re.compile(
    r"\(?[A-J]\)?\s*(?:,|/|&|\bx?or\b|\band\b)\s*(?:option\s+|choice\s+)?\(?[A-J]\b(?!\)?\s*(?:is|was|can(?:no|')t|does|isn't)\b)"
)
# A letter by itself; or before its option's text, where a mark shows that it is no word.
_CHOICE = re.compile(
    r"[\[({]?\s*([A-Ja-j])\s*[\])}.:]?|\(\s*([A-Ja-j])\s*\)\W*\s.*|([A-J])\s*(?:[.):,]|\s[-\u2013\u2014]|\s*\().*", re.DOTALL
)
# A letter marked as text, before other text: the mark shows that it is no word.
_LETTER_APART = re.compile(r"\\(?:text|math)[a-z]*\s*\{\s*([A-J])\s*\}(?:\\[ ,;:!]|\\q?quad|~|\s)*\\(?:text|math)", re.DOTALL)
_STYLE = re.compile(
    r"\\(?:rm|bf|it|sf|tt|bfseries|displaystyle)(?![A-Za-z])|\\(?:text)?color\s*\{\w*\}|\\math(?:bb|cal)(?![A-Za-z])"
)
_TAGGED = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)
_ALONE = re.compile(r"[\[({\"'`]?\s*([A-J])\s*[\])}\"'`]?[.:]?")
# What announces an answer: here the letter must be the last word of its clause. The last such statement counts.
_ANNOUNCED = re.compile(
    r"\b(?:answer|(?:correct|right|best|final)\s+(?:option|choice))\b(?:\s+(?:option|choice))?[*_ ]*+(?:is\b|:|\n)[\s:*_]*+"
    r"(?:(?:the\s+)?(?:option|choice|letter)\b[\s:*_]*+)?"
    r"(?P<open>[(\[{\"'`]?)\s*+(?P<letter>[A-J])(?:\s*(?P<close>[)\]}\"'`]))?[*_]*+"
    r"(?:(?=[.:,;!?](?:\s|\*|$)|\s*$|\s*\n|\s*[(\u2013\u2014]|\s+-\s|\s+(?:because|since|as|for|which|with)\b)|(?<=[)\]}]))",
    re.IGNORECASE,
)
_END_OF_LINE = re.compile(r"[ .*]*(?:\n|$)")
_CLAUSE = re.compile(r"[.,;:!?\n]|\b(?:so|thus|hence|therefore|then|and|but|because|since)\b", re.IGNORECASE)
# What makes of a statement one that is denied, only supposed, or said by others. "I would say" and "not hard to see" state.
_SAY = r"(?:say|think|believe|claim|argue|guess|expect|choose)\b"
_DENIED = re.compile(
    r"\b(?:(?:wrong|incorrect|false)\s*$|(?:if|unless|whether|suppose|assume|thought)\b"
    r"|(?:never|not(?! (?:hard|difficult|only))|\w+n't)\b"
    rf"|(?:many|some|others|people|students|you)\b.*\b{_SAY}|(?<!\bI )(?:would|could|might|may) {_SAY})",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"[^.!?\n]{0,20}(?:\?|(?:,|\bbut\b|\bwhich\b|\bthough\b)[ ,]*(?:but |and |though )?(?:that|this|it|which)?"
    r"(?:(?:'s| is| was| would be) (?:clearly |actually )?(?:wrong|incorrect|false|not (?:right|correct|true))\b"
    r"|(?: isn't| can't be| cannot be) (?:right|correct|true)\b))",
    re.IGNORECASE,
)


def _states(found: re.Match[str]) -> bool:
    """Whether a statement of a letter holds: one letter, no word, and neither denied nor supposed in its clause."""
    text, letter = found.string, found["letter"]
    if letter.islower() and not found["close"] and (letter in "ai" or not _END_OF_LINE.match(text, found.end())):
        return False
    if _SEVERAL.match(text, found.start("letter")) or _TAKEN_BACK.match(text, found.end()):
        return False
    before = text[max(0, found.start() - 100) : found.start()]
    return not _DENIED.search(_CLAUSE.split(before)[-1])


def _boxed(content: str) -> str | None:
    content = _STYLE.sub("", content).replace(r"\{", "{").replace(r"\}", "}")
    text = _LEAD.sub("", unwrapped(content), count=1).strip()
    if _SEVERAL.match(text):
        return None
    found = _LETTER_APART.match(content.strip()) or _CHOICE.fullmatch(text)
    return next(filter(None, found.groups())).upper() if found else None


def lettered(question: str, options: Sequence[str]) -> str:
    """``question`` with its ``options``, at most as many as `LETTERS`, a line each."""
    return "\n".join(
        [question.strip(), "", *(f"{letter}. {option.strip()}" for letter, option in zip(LETTERS, options, strict=False))]
    )


class Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The rows of ``source``. Raises DatasetError."""
        return load_rows(source, ["question", "options", "answer"], ["question", "options", "answer"])

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """The question with its lettered options; the reference is a letter. Raises TaskError where it names no option."""
        if row["answer"] not in [*LETTERS[: len(row["options"])]] or len(row["options"]) > len(LETTERS):
            raise TaskError(f"{self.name}: the answer {row['answer']!r} is none of the options of {row['question']!r}")
        return ask(lettered(row["question"], row["options"]), INSTRUCTION), row["answer"]

    def extract(self, response: str) -> str | None:
        r"""The letter of the last box, by itself or before its option's text, as in ``\boxed{C}``, ``\boxed{\text{(c)}}`` or
        ``\boxed{C. Four}``; without a box that within ``<answer>``, or that is all of the response, or that of the last
        "answer is (C)" or "Answer: C"; else None.

        What is denied ("The wrong answer is A") or supposed ("If the answer is A") is no statement. A word is no letter: neither
        "A lot of energy" nor "The answer is I think B" chooses an option.
        """
        if (boxed := last_boxed(response)) is not None:
            return _boxed(boxed)
        if tagged := _TAGGED.findall(response):
            return _boxed(tagged[-1])
        lines = [unwrapped(line) for line in response.translate(_QUOTES).splitlines()]
        text = "\n".join(line for line in lines if line.strip(" *_:"))
        if found := _ALONE.fullmatch(text):
            return found[1]
        stated = [found for found in _ANNOUNCED.finditer(text) if _states(found)]
        return stated[-1]["letter"].upper() if stated else None

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether it is the same letter."""
        return answer == reference

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """One by one, in the main thread."""
        return grade_each(self, responses, references)
