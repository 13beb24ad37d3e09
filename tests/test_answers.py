"""How answers are read: a table of forms that models write, each with its right reading."""

import csv
from pathlib import Path

import pytest

from prefdelta.tasks import score_all

CASES = Path(__file__).parent / "cases" / "answers.csv"


def cases(kind):
    with CASES.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def test_every_answer_in_mathematics_is_read_as_it_is_meant():
    """``unclear`` forms may be read either way, but must be graded."""
    rows = cases("math")
    found = score_all("math500", [row["response"] for row in rows], [row["reference"] for row in rows], 2)
    assert len(rows) > 350 and None not in {correct for _, correct in found}
    said = {True: "equal", False: "different"}
    wrong = [
        (row["response"], row["reference"], answer, said[correct])
        for row, (answer, correct) in zip(rows, found, strict=True)
        if row["expected"] not in (said[correct], "unclear")
    ]
    assert wrong == []


@pytest.mark.parametrize("row", cases("choice"), ids=lambda row: row["response"] or "nothing")
def test_the_letter_that_an_answer_chooses(row):
    letter = None if row["expected"] == "none" else row["expected"]
    assert score_all("mmlu_pro", [row["response"]], ["C"], 1) == [(letter, letter == "C")]


LONG = " " * 100_000


@pytest.mark.parametrize("lines", ["*\n" * 100_000, "\n" * 100_000, ":\n" * 100_000], ids=["stars", "empty", "colons"])
def test_a_letter_is_found_however_many_lines_are_before_it(lines):
    """A reader whose time grows with the square of the length would take minutes."""
    assert score_all("mmlu_pro", [f"Answer\n{lines}(C)"], ["C"], 1) == [("C", True)]


@pytest.mark.parametrize("response", [f"#### x{LONG}y", rf"\boxed{{x{LONG}y}}"], ids=["marked", "boxed"])
def test_an_answer_is_found_however_many_spaces_are_in_it(response):
    """As above; equal answers are graded without math-verify, which would take long."""
    assert score_all("math500", [response], [f"x{LONG}y"], 1) == [(f"x{LONG}y", True)]
