"""LiveCodeBench: files in the public set's schema with problems of our own, and programs that pass and fail."""

import base64
import json
import pickle
import zlib

import pytest
from test_sandbox import allowed

from prefdelta.data import sandbox
from prefdelta.data.dataset import DatasetError
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import find, score_all

TASK = find("livecodebench")
runs = pytest.mark.skipif(not allowed(), reason="user namespaces are not allowed here")

SUM = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"


def cases(*pairs, kind="stdin"):
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in pairs]


def packed(tests):
    """As private tests are in code_generation_lite."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def problem(**changes):
    return {
        "question_title": "Sum",
        "question_content": "Print the sum of the numbers.",
        "platform": "atcoder",
        "question_id": "own_1",
        "contest_id": "own",
        "contest_date": "2024-09-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases(("1 2\n", "3\n"))),
        "private_test_cases": packed(cases(("10\n20\n30\n", "60\n"), ("", "0"))),
        "metadata": "{}",
    } | changes


STARTER = "class Solution:\n    def pick(self, values: List[int], place: int) -> int:\n        "


def functional(*pairs, name="pick"):
    given = cases(*pairs, kind="functional")
    return problem(
        platform="leetcode",
        starter_code=STARTER,
        metadata=json.dumps({"func_name": name}),
        public_test_cases=json.dumps(given),
        private_test_cases="[]",
    )


def passes(program, row):
    return TASK.score(program, TASK.render(row)[1])


def test_problems_of_a_window_of_dates_come_from_all_files(tmp_path):
    for name, days in {"test.jsonl": ["2024-05-01", "2024-08-01"], "test2.jsonl": ["2024-10-31", "2025-01-01"]}.items():
        rows = [problem(contest_date=f"{day}T14:00:00") for day in days]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for window, expected in {
        (): ["2024-05-01", "2024-08-01", "2024-10-31", "2025-01-01"],
        (("since", "2024-08-01"), ("until", "2024-10-31")): ["2024-08-01", "2024-10-31"],
        (("since", "2024-08-02"), ("until", None)): ["2024-10-31", "2025-01-01"],
    }.items():
        # The reader may make dates of texts that look like dates.
        source = BenchmarkSource(repo=str(tmp_path), files=["test*.jsonl"], **dict(window))
        assert [str(row["contest_date"])[:10] for row in TASK.load(source)] == expected


def test_the_prompt_says_how_the_program_is_asked_for():
    prompt = TASK.render(problem())[0]
    assert "Print the sum of the numbers." in prompt
    assert "Read the inputs from stdin" in prompt
    assert prompt.endswith("```python\n# YOUR CODE HERE\n```")
    prompt = TASK.render(functional(("[1]\n0", "1")))[0]
    assert "starter code" in prompt
    assert "stdin" not in prompt
    assert STARTER in prompt


@pytest.mark.parametrize(
    "private",
    [
        "no tests",
        "{}",
        packed("none")[:-8],
        base64.b64encode(zlib.compress(pickle.dumps(print))).decode(),
        base64.b64encode(zlib.compress(b"cos\nsystem\n(S'true'\ntR.")).decode(),
        json.dumps([{"input": "1"}]),
    ],
)
def test_tests_that_can_not_be_read_are_an_error_that_names_the_question(private):
    with pytest.raises(DatasetError, match="own_1"):
        TASK.render(problem(private_test_cases=private))


def test_a_question_without_tests_is_an_error():
    with pytest.raises(DatasetError, match="own_1 has no tests"):
        TASK.render(problem(public_test_cases="[]", private_test_cases="[]"))


@pytest.mark.parametrize(
    "response, code",
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("First\n```python\nprint(1)\n```\nor better\n```\nprint(2)\n\nprint(3)\n```\nDone.", "print(2)\n\nprint(3)"),
        ("1. It is\n   ```py\n   print(1)\n   ```", "   print(1)"),
        ("```python\nprint(1)\n```\nand\n```python\nprint(2", "print(1)"),
        ("```python\nprint(2", None),
        ("```python\n\n```", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_whole_block(response, code):
    assert TASK.extract(response) == code


@runs
@pytest.mark.parametrize(
    "program",
    [
        SUM,
        "print(sum(int(word) for line in sys.stdin for word in line.split()))",  # imports are forgiven
        f"from __future__ import annotations\n{SUM}",
        f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\n    exit(0)\nif __name__ == '__main__':\n    main()",
        SUM.replace("print(", "print(' ', '+%d.0' % ") + "\nprint()",
        f"import threading\ndef main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nthreading.Thread(target=main).start()",
        "print(sum(map(int, open(0).read().split())))",
    ],
)
def test_right_programs_pass(program):
    assert passes(program, problem())


@runs
@pytest.mark.parametrize(
    "program",
    [
        "print(3)",  # the public test only
        "print(",
        f"{SUM}\nprint(0)",
        f"{SUM}\nraise ValueError",
        f"{SUM}\nimport os\nos._exit(1)",
        "pass",
        "while True: pass",
    ],
)
def test_wrong_programs_fail(program, monkeypatch):
    monkeypatch.setattr("prefdelta.tasks.livecodebench.SECONDS", 1)
    assert passes(program, problem()) is False


@runs
def test_a_program_that_the_clock_stopped_is_tried_again_with_more_and_then_ungraded(monkeypatch):
    monkeypatch.setattr("prefdelta.tasks.livecodebench.SECONDS", 0.1)
    monkeypatch.setattr("prefdelta.tasks.livecodebench.WALL_TO_CPU", (2, 6))
    tried = []

    def run(*arguments, real=sandbox.run, **limits):
        tried.append((limits["wall_to_cpu"], real(*arguments, **limits)))
        return tried[-1][1]

    monkeypatch.setattr(sandbox, "run", run)
    assert passes("import time\ntime.sleep(60)", problem()) is None
    assert [(times, outcome.stopped_by_clock) for times, outcome in tried] == [(2, True), (6, True)]


@runs
@pytest.mark.parametrize("printed, right", [("3", True), ("4", False)])
def test_the_second_try_of_a_program_that_waited_for_its_turn_counts(printed, right, monkeypatch):
    monkeypatch.setattr("prefdelta.tasks.livecodebench.SECONDS", 0.1)
    monkeypatch.setattr("prefdelta.tasks.livecodebench.WALL_TO_CPU", (5, 600))
    row = problem(private_test_cases="[]")
    assert passes(f"import time\ntime.sleep(0.6)\nprint({printed})", row) is right


@runs
@pytest.mark.parametrize(
    "expected, printed, same",
    [
        ("1 2\n3\n", "1 2 \n3\n\n", True),
        ("1 2\n3", "1 2 3", False),
        ("0.5", "0.50", True),
        ("0.5", "0.500001", False),
        ("50000000000000000", "50000000000000001", False),
        ("Yes", "yes", False),
        ("Yes 1", "Yes 1.0", False),
        ("1", "nan", False),
        ("1", "sNaN", False),
        ("", "", True),
    ],
)
def test_outputs_are_compared_line_by_line_and_numbers_by_value(expected, printed, same):
    row = problem(public_test_cases=json.dumps(cases(("", expected))), private_test_cases="[]")
    assert passes(f"print({printed!r})", row) == same


PICK = "class Solution:\n    def pick(self, values: List[int], place: int) -> int:\n        "


@runs
@pytest.mark.parametrize(
    "program",
    [
        f"{PICK}return values[place]",
        f"{PICK}print('debug'); return values[place]",
        f"from typing import *\n{PICK}return float(values[place])",
        "def pick(values, place):\n    return values[place]",
        f"import numpy\n{PICK}return numpy.array(values)[place]",
    ],
)
def test_right_functions_pass(program):
    assert passes(program, functional(("[1, 5, 9]\n1", "5"), ("[2]\n0", "2")))


@runs
@pytest.mark.parametrize(
    "program",
    [
        f"{PICK}return 5",
        f"{PICK}print(values[place])",
        f"{PICK}return str(values[place])",
        f"{PICK}raise ValueError",
        f"{PICK}exit(0)",
        f"{PICK}return print",
        "class Solution:\n    pass",
        "print(5)",
    ],
)
def test_wrong_functions_fail(program):
    assert not passes(program, functional(("[1, 5, 9]\n1", "5"), ("[2]\n0", "2")))


@runs
@pytest.mark.parametrize(
    "returned, expected, same",
    [
        ("(1, 2)", "[1, 2]", True),
        ("[(1, 2)]", "[[1, 2]]", False),
        ("[[1], []]", "[[1], []]", True),
        ("None", "null", True),
        ("True", "true", True),
        ("float('nan')", "NaN", False),
        ("'a\\n\"b'", r'"a\n\"b"', True),
    ],
)
def test_returned_values_are_compared_as_values(returned, expected, same):
    program = f"class Solution:\n    def pick(self, n):\n        return {returned}"
    assert passes(program, functional(("1", expected))) == same


def test_no_answer_is_wrong():
    assert not TASK.score(None, TASK.render(problem())[1])


@runs
def test_many_answers_are_scored_in_threads_in_order():
    reference = TASK.render(problem())[1]
    responses = [f"```python\n{code}\n```" for code in (SUM, "print(3)", SUM)] + ["I give up."]
    scores = score_all("livecodebench", responses, [reference] * 4, threads=2)
    assert [(answer is None, correct) for answer, correct in scores] == [
        (False, True),
        (False, False),
        (False, True),
        (True, False),
    ]
