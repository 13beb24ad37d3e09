"""LiveCodeBench, code generation (arXiv 2403.07974): programs that must pass all tests of a problem, chosen by contest date.

Data: livecodebench/code_generation_lite, whose files test.jsonl, test2.jsonl ... have the columns question_title,
question_content, platform, question_id, contest_id, contest_date, starter_code, difficulty, public_test_cases, private_test_cases
and metadata. The source's options ``since`` and ``until`` (ISO dates, both included) choose a window.
"""

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from prefdelta.data import sandbox
from prefdelta.data.dataset import DatasetError, load_rows
from prefdelta.study.sources import BenchmarkSource
from prefdelta.tasks import Grade, grade_each

SECONDS = 6  # for each test, as in lcb_runner (there by the clock, here of CPU time)
WALL_TO_CPU = (2, 20)  # what the clock allows, and what it allows when a test is tried again, in multiples of that
MEMORY_MB = 4096

COLUMNS = (
    "question_id",
    "question_content",
    "contest_date",
    "starter_code",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)

# The wording of lcb_runner/prompts/code_generation.py for reasoning models (QwQ's and R1's; MIT licence), without chat marks.
INSTRUCTION = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests."
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within delimiters."
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample inputs). "
    "Enclose your code within delimiters as follows."
)

# lcb_runner forgives imports that are not there: it puts these before every program. All stars come first, then the modules.
_MODULES = """string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys
json""".split()  # noqa: SIM905
_PRELUDE = "\n".join(
    [f"from {name} import *" for name in (*_MODULES, "builtins", "typing")]
    + [f"import {name}" for name in _MODULES]
    + ["sys.setrecursionlimit(50000)"]
)
_STDIN_PROGRAM = """{prelude}
try:
    exec(compile({code!r}, "solution.py", "exec"))
except SystemExit:
    pass
"""
# The answer goes to the real stdout, what the solution prints goes nowhere. As in lcb_runner a tuple may stand for a list, but
# not within the answer.
_FUNCTION_PROGRAM = """{prelude}
import json as _json, os as _os, sys as _sys
_answers = _os.fdopen(_os.dup(1), "w")
_os.dup2(_os.open("/dev/null", _os.O_WRONLY), 1)
_arguments = [_json.loads(_line) for _line in _sys.stdin.read().split("\\n")]

def _plain(_value):
    if isinstance(_value, tuple):
        raise TypeError("a tuple within the answer is not a list")
    return [_plain(_item) for _item in _value] if isinstance(_value, list) else _value

exec(compile({code!r}, "solution.py", "exec"))
_method = getattr(Solution(), {name!r}) if "class Solution" in {code!r} else globals()[{name!r}]
_result = _method(*_arguments)
_result = _plain(list(_result) if isinstance(_result, tuple) else _result)
_answers.write(_json.dumps(_result, default=lambda _number: _number.item()))
_answers.close()
"""


class _DataOnly(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not data")


class Task:
    """A problem's program reads stdin and writes stdout, or completes a function of LeetCode's ``Solution``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: BenchmarkSource) -> list[dict[str, Any]]:
        """The problems whose contest lies between ``since`` and ``until``. Raises DatasetError."""
        first = date.fromisoformat(source.since) if source.since else date.min
        last = date.fromisoformat(source.until) if source.until else date.max
        return [
            row
            for row in load_rows(source, COLUMNS, ["question_content", "contest_date", "public_test_cases"])
            if first <= _day(row) <= last
        ]

    def render(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """The prompt, and JSON with ``func_name`` (null where the program reads stdin) and ``tests`` (compressed).

        Raises DatasetError where the tests can't be read.
        """
        starter = row["starter_code"]
        form = WITH_STARTER if starter else WITHOUT_STARTER
        block = f"```python\n{starter or '# YOUR CODE HERE'}\n```"
        prompt = f"{INSTRUCTION}\n\nQuestion: {row['question_content']}\n\n{form}\n{block}"
        try:
            tests = [
                [test["input"], test["output"]]
                for test in json.loads(row["public_test_cases"]) + _private_tests(row["private_test_cases"])
            ]
            name = json.loads(row["metadata"]).get("func_name")
        except (ValueError, KeyError, TypeError, EOFError, zlib.error, pickle.UnpicklingError) as error:
            raise DatasetError(f"{self.name}: the tests of question {row['question_id']} can't be read: {error}") from error
        if not tests:
            raise DatasetError(f"{self.name}: question {row['question_id']} has no tests")
        # Up to tens of megabytes of digits, hence compressed.
        packed = base64.b64encode(zlib.compress(json.dumps(tests).encode())).decode()
        return prompt, json.dumps({"func_name": name, "tests": packed})

    def extract(self, response: str) -> str | None:
        """The last complete fenced block of code; None where there is none, or nothing in it."""
        last, opened = None, None
        lines = response.splitlines()
        for number, line in enumerate(lines):
            if line.strip().startswith("```"):
                if opened is not None:
                    last, opened = "\n".join(lines[opened + 1 : number]), None
                else:
                    opened = number
        return last if last and last.strip() else None

    def score(self, answer: str | None, reference: str) -> bool | None:
        """Whether the program ``answer`` passes every test, each in a sandbox of its own. Raises sandbox.SandboxError.

        A test that the clock stopped is tried again with more time by the clock; None where that was not enough, either.
        """
        if answer is None:
            return False
        problem = json.loads(reference)
        tests = json.loads(zlib.decompress(base64.b64decode(problem["tests"])))
        form = _FUNCTION_PROGRAM if problem["func_name"] else _STDIN_PROGRAM
        program = form.format(prelude=_PRELUDE, code=answer, name=problem["func_name"])
        same = _same_value if problem["func_name"] else _same_lines
        for given, expected in tests:
            for wall_to_cpu in WALL_TO_CPU:
                outcome = sandbox.run(
                    program,
                    given,
                    seconds=SECONDS,
                    memory_mb=MEMORY_MB,
                    output_bytes=2 * len(expected.encode()) + 2**20,
                    wall_to_cpu=wall_to_cpu,
                )
                if not outcome.stopped_by_clock:
                    break
            else:
                return None
            if not outcome.ok or not same(outcome.stdout, expected):
                return False
        return True

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """In ``threads`` threads, since programs run in processes of their own."""
        return grade_each(self, responses, references, threads)


def _day(row: Mapping[str, Any]) -> date:
    return datetime.fromisoformat(str(row["contest_date"])).date()


def _private_tests(text: str) -> list[Any]:
    """``text`` is a JSON list, or a base64 of a zlib of a pickle of one, which is read without running anything."""
    try:
        tests = json.loads(text)
    except ValueError:
        try:
            packed = zlib.decompress(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise ValueError(f"neither JSON nor base64: {error}") from None
        tests = json.loads(_DataOnly(io.BytesIO(packed)).load())
    if not isinstance(tests, list):
        raise ValueError("the private tests are not a list")
    return tests


def _same_value(written: str, expected: str) -> bool:
    """Equality of the two JSON values, as `grade_call_based` of lcb_runner/evaluation/testing_util.py."""
    try:
        return bool(json.loads(written) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _same_lines(written: str, expected: str) -> bool:
    """Equality line by line, of the text or else of all numbers in it, as `grade_stdio` of lcb_runner's testing_util.py."""

    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.strip().split("\n")]

    def numbers(line: str) -> list[Decimal]:
        return [Decimal(word) for word in line.split()]

    ours, theirs = lines(written), lines(expected)
    try:
        return len(ours) == len(theirs) and all(
            our == their or numbers(our) == numbers(their) for our, their in zip(ours, theirs, strict=True)
        )
    except InvalidOperation:  # a word is no number
        return False
