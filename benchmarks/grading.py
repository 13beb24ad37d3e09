"""Grading of answers in mathematics against math-verify one by one in one process; and how many forms of answers each reads.

The answers are of six forms, each with a number of its own, so that nothing is looked up that was parsed before; of two of the
forms it is plain to see what they are worth. Of the rows of `tests/cases/answers.csv` (without those that may be read either way)
it is counted how many each extractor reads as they are meant: this project's, math-verify as it comes (`parse` of the whole
response), and lm-eval's filter for MMLU-Pro.

    python benchmarks/grading.py [number of answers]
"""

import csv
import logging
import os
import re
import sys
import time
from pathlib import Path

from math_verify import parse, verify

from prefdelta.tasks import score_all

CASES = Path(__file__).parents[1] / "tests" / "cases" / "answers.csv"
FORMS = (r"\boxed{\frac{%d}{7}}", r"\boxed{%d}", r"\boxed{%d.0}", r"\boxed{x^2+%d}", r"\boxed{(%d, 2]}", r"\boxed{%d\sqrt{8}}")
REFERENCES = (r"\frac{%d}{7}", "%d", "%d", "%d+x^2", "(%d,2]", r"2\sqrt{2}\cdot %d")
LM_EVAL = re.compile(r"answer is \(?([ABCDEFGHIJ])\)?")  # `custom-extract` of lm-eval's mmlu_pro; the first match counts


def by_math_verify(response: str, reference: str) -> bool:
    return bool(verify(parse(f"${reference}$"), parse(response)))


def main(n: int) -> None:
    logging.disable()
    with CASES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["expected"] != "unclear"]
    mathematics = [row for row in rows if row["kind"] == "math"]
    choices = [row for row in rows if row["kind"] == "choice"]
    responses, references = [row["response"] for row in mathematics], [row["reference"] for row in mathematics]
    equal = [row["expected"] == "equal" for row in mathematics]
    ours = [correct for _, correct in score_all("math500", responses, references, 2)]
    theirs = [by_math_verify(*pair) for pair in zip(responses, references, strict=True)]
    for name, found in (("this project", ours), ("math-verify", theirs)):
        print(f"mathematics, {name}: {sum(a == b for a, b in zip(found, equal, strict=True))} of {len(equal)}")
    letters = [row["expected"] for row in choices]
    ours = [
        answer or "none" for answer, _ in score_all("mmlu_pro", [row["response"] for row in choices], ["C"] * len(choices), 1)
    ]
    matches = [LM_EVAL.search(row["response"]) for row in choices]
    theirs = [found[1] if found else "none" for found in matches]
    for name, found in (("this project", ours), ("lm-eval's mmlu_pro", theirs)):
        print(f"choices, {name}: {sum(a == b for a, b in zip(found, letters, strict=True))} of {len(letters)}")

    responses = [FORMS[number % len(FORMS)] % (number + 2) for number in range(n)]
    references = [REFERENCES[number % len(FORMS)] % (number + 2) for number in range(n)]
    seconds = {}
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        started = time.perf_counter()
        grades = score_all("math500", responses, references, threads)
        seconds[threads] = time.perf_counter() - started
        print(f"{n} answers, {threads} threads: {seconds[threads]:.1f} s, {sum(correct is True for _, correct in grades)} right")
    started = time.perf_counter()
    right = sum(by_math_verify(*pair) for pair in zip(responses, references, strict=True))
    plain = time.perf_counter() - started
    print(f"{n} answers, math-verify one by one: {plain:.1f} s, {right} right; ratio {plain / min(seconds.values()):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
