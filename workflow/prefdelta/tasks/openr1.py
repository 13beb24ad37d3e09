"""Training problems from open-r1/OpenR1-Math-220k (columns problem, answer, question_type and more), filtered.

The paper does not say how it filtered them; every filter and default here is ours. In this order a problem is left out as
- ``proof``: its type is proof, or its answer is 'proof' or 'notfound' (NuminaMath's marks);
- ``no answer``: the answer is empty;
- ``multiple choice``: its type is MCQ and the answer is no letter from A to F;
- ``length``: not between ``min_characters`` (20: less is no whole problem) and ``max_characters`` (4000: more is a scan or
  several problems) characters;
- ``picture``: it shows a picture or links to one, which a language model can't see;
- ``duplicate``: its normalised text (see `decontaminate.normalised`) is that of a problem that was kept before it;
- ``not verifiable``: the answer is prose, or math-verify can't parse it, or finds it different from itself.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prefdelta.data.contamination import normalised
from prefdelta.data.dataset import load_rows
from prefdelta.study.sources import CorpusSource, Source
from prefdelta.tasks import prompt_id, workers
from prefdelta.tasks.common import MathTask, equal, parsed
from prefdelta.tasks.latex import spelled

log = logging.getLogger(__name__)

_LETTER = re.compile(r"\(?[A-F]\)?\.?|\\(?:text|textbf|mathrm|mathbf)\{\s*\(?[A-F]\)?\.?\s*\}")
_PICTURE = re.compile(r"!\[[^\]]*\]\(|https?://|\\includegraphics|\[asy\]|<img\b", re.IGNORECASE)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_INTEGER = re.compile(r"-?\d{1,30}")


class Task(MathTask):
    """Problems for training; extracted and scored as all mathematics."""

    def load(self, source: Source) -> list[dict[str, Any]]:
        """The rows of ``source`` without their generations. Raises DatasetError."""
        return load_rows(source, ["problem", "answer", "question_type"])

    def filtered(self, rows: list[dict[str, Any]], source: CorpusSource) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """The problems that are kept and those that are left out, in order.

        Of the kept: prompt_id, task, prompt, answer, as of `tasks.items`. Of the others: prompt_id, task, prompt, reason, detail.
        ``source`` has min_characters and max_characters. Must run in the main thread (see `workers`), of which it takes one
        for each processor that it may use.
        """
        kept: list[dict[str, str]] = []
        left_out: list[dict[str, str]] = []
        known: dict[str, str] = {}
        fewest, most = source.min_characters, source.max_characters
        given = [(row["problem"] or "", (row["answer"] or "").strip(), row["question_type"]) for row in rows]
        faults = [_fault(problem, answer, kind, fewest, most) for problem, answer, kind in given]
        unverifiable = self._unverifiable([answer for (_, answer, _), fault in zip(given, faults, strict=True) if not fault])
        for (problem, answer, _), fault in zip(given, faults, strict=True):
            prompt, reference = self.render({"problem": problem, "answer": answer})
            key = prompt_id(self.name, prompt)
            found = {"prompt_id": key, "task": self.name, "prompt": prompt}
            text = normalised(problem)
            if fault is None and text in known:
                fault = "duplicate", f"of {known[text]}"
            if fault is None and answer in unverifiable:
                fault = "not verifiable", unverifiable[answer]
            if fault is None:
                known[text] = key
                kept.append({**found, "answer": reference})
            else:
                left_out.append({**found, "reason": fault[0], "detail": fault[1]})
        log.info("%s: %d problems kept, left out %s", self.name, len(kept), dict(Counter(row["reason"] for row in left_out)))
        return kept, left_out

    def _unverifiable(self, answers: list[str]) -> dict[str, str]:
        """Why math-verify can't score answers against some of ``answers``."""
        found = {}
        asked = []
        for answer in dict.fromkeys(answers):
            # math-verify would read 'no solution' as a product of letters.
            if len(_WORD.findall(_COMMAND.sub(" ", answer))) > 1:
                found[answer] = f"answer '{answer[:40]}' is prose"
            elif not _INTEGER.fullmatch(answer):  # most answers are, and parsing takes milliseconds
                asked.append(answer)
        log.info("%s: math-verify looks at %d answers", self.name, len(asked))
        yielded = workers.work(self.name, "checked", [(answer,) for answer in asked], len(os.sched_getaffinity(0)))
        for answer, fault in zip(asked, yielded, strict=True):
            if fault != [""]:
                found[answer] = f"answer '{answer[:40]}' {fault[0] if fault else 'takes too long to compare'}"
        return found

    def checked(self, answer: str) -> Iterator[str]:
        """Yields what is wrong with ``answer`` as a reference, or an empty text."""
        expressions = list(parsed(spelled(answer)))
        if all(isinstance(expression, str) for expression in expressions):
            yield "can't be parsed"
        else:
            yield "" if equal(spelled(answer), spelled(answer)) else "does not equal itself"


def _fault(problem: str, answer: str, kind: str | None, fewest: int, most: int) -> tuple[str, str] | None:
    """(reason, detail) why a problem is not fit, as far as its text and type tell."""
    if kind == "proof" or answer.lower() in ("proof", "notfound"):
        return "proof", f"type {kind}, answer '{answer[:40]}'"
    if not answer:
        return "no answer", f"type {kind}"
    if kind == "MCQ" and not _LETTER.fullmatch(answer):
        return "multiple choice", f"answer '{answer[:40]}' is no letter"
    if not fewest <= len(problem) <= most:
        return "length", f"{len(problem)} characters"
    if picture := _PICTURE.search(problem):
        return "picture", picture[0]
    return None
