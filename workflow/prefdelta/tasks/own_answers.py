"""Answers to problems of one's own: what they are read as, and whether they are right.

What is right depends on the ``answer_type``:
- ``math``: as `common.MathTask` compares.
- ``number``: no farther from the right number than ``tolerance``, as a share of it (of 0: as a number). Units of both must be the
  same; where one has none, it counts as the other's. 50 % is 50 and 0.5. A comma separates thousands, and nothing else.
- ``choice``: the letter, as `mmlu_pro` reads it.
- ``text``: the same text but for case, spaces, marks of LaTeX and Markdown, and punctuation and quotes at its ends.
- ``regex``: the right answer is a pattern of Python's `re`, which has to match all of the answer, case included.
- ``none``: nothing is known to be right.
Of text, regex and none the answer is what the last box holds, else the last line without the "Answer:" that it may begin with.
"""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from prefdelta.tasks import Grade, grade_each, mmlu_pro, workers
from prefdelta.tasks.common import MathTask, equal, real
from prefdelta.tasks.latex import last_boxed, quantity, spelled, unwrapped

ROUNDING = 1 + 1e-9  # what is exactly as far off as is allowed is right

_DECIMAL = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))(?:\s*\\times\s*10\^\{?([-+]?\d+)\}?)?")
_FRACTION = re.compile(r"([-+]?)(?:(\d*)\s*\\[dt]?frac\{(\d+)\}\{(\d+)\}|(\d+)\s*/\s*(\d+))")
_COMMA = re.compile(r"\d,\d")
_LEAD = re.compile(
    r"^(?:so|thus|hence|therefore)?,?\s*(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is\b\s*:?|:)\s*", re.IGNORECASE
)
_ESCAPED = re.compile(r"\\([%&#_])")
_ENDS = " .,;:!?\"'`\u2018\u2019\u201c\u201d\u3002"


def grade(name: str, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
    """The grade of each response, by the type in its reference: patterns, and values that are not plain to see, in `workers`."""
    golds = [json.loads(reference) for reference in references]
    grades: dict[int, Grade] = {}
    for kind in dict.fromkeys(gold["type"] for gold in golds):
        places = [place for place, gold in enumerate(golds) if gold["type"] == kind]
        given, right = [responses[place] for place in places], [golds[place].get("answer") for place in places]
        if kind in ("math", "number"):
            found = Value(name).grade(given, [references[place] for place in places], threads)
        elif kind == "choice":
            found = grade_each(mmlu_pro.Task(name), given, right)
        else:
            found = _compared(name, kind, [stated(response) for response in given], right, threads)
        grades |= zip(places, found, strict=True)
    return [grades[place] for place in range(len(golds))]


def _compared(name: str, kind: str, answers: list[str | None], right: list[str], threads: int) -> list[Grade]:
    """Grades of ``answers`` as texts."""
    known = {place: (answer, right[place]) for place, answer in enumerate(answers) if answer is not None}
    correct: dict[int, bool | None] = dict.fromkeys(range(len(answers)), None if kind == "none" else False)
    if kind == "text":
        correct |= {place: plain(answer) == plain(gold) for place, (answer, gold) in known.items()}
    elif kind == "regex":
        matched = workers.work(name, "matches", list(known.values()), threads)
        correct |= {place: next(iter(yielded), None) for place, yielded in zip(known, matched, strict=True)}
    return list(zip(answers, correct.values(), strict=True))


class Value(MathTask):
    """Mathematics and numbers, as the type in the reference says."""

    def plainly(self, answer: str, reference: str) -> bool | None:
        """Whether ``answer`` is right where that is plain to see, else None."""
        gold = json.loads(reference)
        if gold["type"] == "math":
            return super().plainly(answer, gold["answer"])
        if quantity(answer).differs(quantity(gold["answer"])):
            return False
        value = number(answer)
        if value is None:
            return False if _COMMA.search(spelled(answer)) else None  # math-verify would leave the comma out
        return _within(value, answer, gold)

    def score(self, answer: str | None, reference: str) -> bool:
        """Whether ``answer`` is right. None is wrong. It may never end: see `workers`."""
        if answer is None:
            return False
        if (known := self.plainly(answer, reference)) is not None:
            return known
        gold = json.loads(reference)
        if gold["type"] == "math":
            return equal(spelled(answer), spelled(gold["answer"]))
        value = real(_without_percent(answer))
        return value is not None and _within(value, answer, gold)


def number(text: str) -> float | None:
    """What ``text`` states in digits: a decimal, a fraction, a power of ten; a unit or percent sign after it does not count."""
    text = _without_percent(text)
    if found := _DECIMAL.fullmatch(text):
        value = float(f"{found[1]}e{found[2] or 0}")
    elif (found := _FRACTION.fullmatch(text)) and (under := int(found[4] or found[6])):
        value = float(f"{found[1]}1") * (int(found[2] or 0) + int(found[3] or found[5]) / under)
    else:
        return None
    return value if math.isfinite(value) else None


def _without_percent(text: str) -> str:
    return re.sub(r"\s*\\?%$", "", spelled(text))


def _within(value: float, answer: str, gold: dict[str, Any]) -> bool:
    """Whether ``value``, which ``answer`` states, is within the tolerance of the right number; 50 % is 50 and 0.5."""
    right = number(gold["answer"])
    assert right is not None  # it was looked at when the problem was read
    ours, theirs = (("percent", 1) in quantity(text).unit for text in (answer, gold["answer"]))
    pairs = [(value, right)]
    if ours != theirs:
        pairs.append((value / 100, right) if ours else (value, right / 100))
    return any(abs(one - other) <= gold["tolerance"] * (abs(other) or 1) * ROUNDING for one, other in pairs)


def stated(response: str) -> str | None:
    """The answer that ``response`` states as a text, without marks of LaTeX and Markdown: what the last box holds, else the last
    line without the "Answer:" that it may begin with. None where there is none."""
    if (boxed := last_boxed(response)) is not None:
        return _unmarked(boxed) or None
    lines = [text for line in response.splitlines() if (text := _unmarked(line))]
    return _LEAD.sub("", lines[-1]) or None if lines else None


def plain(text: str) -> str:
    """``text`` as it is compared: NFKC, case folded, single spaces, no marks, and no punctuation or quotes at its ends."""
    return " ".join(unicodedata.normalize("NFKC", _unmarked(text)).casefold().split()).strip(_ENDS)


def _unmarked(text: str) -> str:
    return _ESCAPED.sub(r"\1", unwrapped(text))
