"""Problems of one's own, from any file or set with a problem in each row: how rows become prompts and right answers.

How they are written down, and what is left out or refused: docs/your-problems.md. What is right: `own_answers`.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prefdelta.data.dataset import MOST_EMPTY, SHOWN, DatasetError, is_empty, load_split, whole_rows
from prefdelta.study.checks import columns_fit
from prefdelta.study.sources import ProblemsSource
from prefdelta.tasks import Grade, own_answers, prompt_id
from prefdelta.tasks.common import INSTRUCTION
from prefdelta.tasks.latex import option
from prefdelta.tasks.mmlu_pro import INSTRUCTION as WITH_LETTERS
from prefdelta.tasks.mmlu_pro import LETTERS, lettered

log = logging.getLogger(__name__)

INSTRUCTIONS = {**dict.fromkeys(("math", "number", "text", "regex"), INSTRUCTION), "choice": WITH_LETTERS, "none": ""}
TOLERANCE = 1e-6  # of numbers, where the source states none


class Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: ProblemsSource) -> list[dict[str, Any]]:
        """The ``prompt`` and the ``reference`` of each problem: JSON of its type, its answer, what grading needs, and its id.

        Rows with faults are left out as by `whole_rows`; of those with the same problem and answer the first one counts. Raises
        DatasetError, also for a row with anything but one turn of a user, or whose answer should be a pattern and is none.
        """
        rows, worked = _rows(source), _rows(source, worked=True) if source.examples else []
        reading = _reading(rows, source) if source.answer_type == "choice" else ""
        examples = {_problem(row): _written(row["answer"]) for row in worked}
        made = [_made(row, source, reading) for row in rows]
        ids: dict[str, int] = {}
        firsts: dict[str, int] = {}
        for number, row in enumerate(made, 1):
            problem, gold, faults = row["problem"], row["gold"], row["faults"]
            if problem in examples:
                faults.append(f"its problem is one of {source.examples}")
            if "id" in gold and (first := ids.setdefault(gold["id"], number)) != number:
                faults.append(f"its id '{gold['id']}' is that of row {first}")
            first = number if faults else firsts.setdefault(problem, number)
            row["repeats"] = first != number
            if gold.get("answer") != made[first - 1]["gold"].get("answer"):
                faults.append(f"row {first} has another answer to the same problem")
        whole = whole_rows(made, source, lambda row: row["faults"], "can't be used")
        kept = [row for row in whole if not row["repeats"]]
        if len(kept) < len(whole):
            log.warning(
                "%s: %d rows repeat the problem of a row before them; they are left out", self.name, len(whole) - len(kept)
            )
        before = "".join(f"Problem: {problem}\n\nAnswer: {answer}\n\n" for problem, answer in examples.items())
        instruction = INSTRUCTIONS[source.answer_type] if source.instruction is None else source.instruction.strip()
        found = []
        for row in kept:
            parts = [f"{before}Problem: {row['problem']}" if before else row["problem"], instruction]
            found.append({"prompt": "\n\n".join(filter(None, parts)), "reference": json.dumps(row["gold"], sort_keys=True)})
        return found

    def filtered(self, rows: list[dict[str, Any]], source: ProblemsSource) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """All that `load` gives is fit for training."""
        kept = []
        for prompt, answer in map(self.render, rows):
            kept.append({"prompt_id": prompt_id(self.name, prompt), "task": self.name, "prompt": prompt, "answer": answer})
        return kept, []

    def render(self, row: dict[str, Any]) -> tuple[str, str]:
        """What `load` has made of a row."""
        return row["prompt"], row["reference"]

    def grade(self, responses: Sequence[str], references: Sequence[str], threads: int) -> list[Grade]:
        """By the type of each reference."""
        return own_answers.grade(self.name, responses, references, threads)

    def graded(self, response: str, reference: str) -> Iterator[str | bool | None]:
        """For `workers`: yields the answer and whether it is right, of mathematics and numbers."""
        yield from own_answers.Value(self.name).graded(response, reference)

    def matches(self, answer: str, pattern: str) -> Iterator[bool]:
        """For `workers`: yields whether ``pattern`` matches all of ``answer``."""
        yield re.fullmatch(pattern, answer) is not None


def _rows(source: ProblemsSource, *, worked: bool = False) -> list[dict[str, Any]]:
    """The rows of ``source``, or its ``worked`` examples, by the keys of ``columns``; problems, and ids where it has some, are
    texts. Raises DatasetError."""
    where = source.model_copy(update={"repo": source.examples, "files": None}) if worked else source
    split = load_split(where)
    if faults := list(columns_fit(source, split.column_names, worked=worked)):
        raise DatasetError(f"{where.repo}: {'; '.join(faults)}")
    names = {key: source.columns.get(key, key) for key in ("problem", "messages", "answer", "choices", "id")}
    unread = {"choices"} if source.answer_type != "choice" else set()
    unread |= {"problem"} if "messages" in source.columns else set()
    names = {key: column for key, column in names.items() if column in split.column_names and key not in unread}
    rows = []
    for number, given in enumerate(split.select_columns(list(dict.fromkeys(names.values()))).to_list(), 1):
        row, place = {key: given[column] for key, column in names.items()}, f"{where.repo}, row {number}"
        row["problem"] = _written(row["problem"]) if "problem" in row else _turn(row["messages"], place)
        row |= {"id": _written(row["id"])} if "id" in row else {}
        if worked:
            _check_example(row, place)
        elif source.answer_type == "regex":
            _check_pattern(_written(row["answer"]), place)
        rows.append(row)
    return rows


def _written(value: Any) -> str:
    """A cell as a text, empty for nothing: true and 2.0 are True and 2."""
    if is_empty(value):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _turn(messages: Any, place: str) -> str:
    """The text of ``messages``: one turn of a user, as a list or as JSON. Raises DatasetError, which names the ``place``."""
    try:
        found = json.loads(messages) if isinstance(messages, str) else messages
    except ValueError:
        found = None
    match found:
        case [{"role": "user", "content": str(content)}]:
            return content.strip()
    raise DatasetError(
        f"{place}: messages must be one turn of a user, [{{role: user, content: a text}}], not {str(messages)[:80]!r}: "
        "conversations and system prompts can't be used (a system prompt is a key of a model)"
    )


def _check_example(row: dict[str, Any], place: str) -> None:
    if not row["problem"] or not _written(row["answer"]):
        raise DatasetError(f"{place}: an example needs a problem and a worked answer")
    try:
        _problem(row)
    except ValueError as error:
        raise DatasetError(f"{place}: {error}") from None


def _check_pattern(pattern: str, place: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"{place}: the answer {pattern!r} is no pattern: {error}") from None


def _problem(row: dict[str, Any]) -> str:
    """The problem, with its options. Raises ValueError where there are none."""
    return lettered(row["problem"], _options(row)) if "choices" in row else str(row["problem"])


def _options(row: dict[str, Any]) -> list[str]:
    """The options of a row: a list, or its JSON. Raises ValueError."""
    found = row["choices"]
    try:
        found = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(options := [_written(one) for one in found]):
        raise ValueError(f"its choices are no list of texts: {str(row['choices'])[:80]!r}")
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"it has {len(options)} choices, not 2 to {len(LETTERS)}")
    return options


def _made(row: dict[str, Any], source: ProblemsSource, reading: str) -> dict[str, Any]:
    """The ``problem`` of a row, what is right (``gold``), and its ``faults``."""
    gold = {"type": source.answer_type} | ({"id": row["id"]} if "id" in row else {})
    faults = [f"no {key}" for key in ("problem", "id") if row.get(key) == ""]
    problem = ""
    try:
        problem = _problem(row)
        gold |= _gold(row, source, reading)
    except ValueError as error:
        faults.append(str(error))
    return {"problem": problem, "gold": gold, "faults": faults}


def _gold(row: dict[str, Any], source: ProblemsSource, reading: str) -> dict[str, Any]:
    """What grading needs of a row. Raises ValueError."""
    if source.answer_type == "none":
        return {}
    if isinstance(row["answer"], list | dict):
        raise ValueError(f"its answer is a {type(row['answer']).__name__}, not a text or a number")
    answer = _written(row["answer"])
    if not answer:
        raise ValueError("no answer")
    if source.answer_type == "number":
        if own_answers.number(answer) is None:
            raise ValueError(f"its answer '{answer}' is no number in digits")
        return {"answer": answer, "tolerance": TOLERANCE if source.tolerance is None else source.tolerance}
    if source.answer_type == "choice":
        place = READINGS[reading](answer, _options(row))
        if place is None:
            raise ValueError(f"its answer '{answer}' is none of its choices by {reading}")
        return {"answer": LETTERS[place]}
    if source.answer_type == "text" and not own_answers.plain(answer):
        raise ValueError(f"nothing of its answer '{answer}' is compared")
    return {"answer": answer}


def _by_letter(answer: str, options: list[str]) -> int | None:
    place = LETTERS.find(option(answer) or "-")
    return place if place in range(len(options)) else None


def _by_index(answer: str, options: list[str], first: int) -> int | None:
    place = int(answer) - first if re.fullmatch(r"[0-9]{1,2}", answer) else -1
    return place if place in range(len(options)) else None


def _by_text(answer: str, options: list[str]) -> int | None:
    places = [place for place, text in enumerate(options) if own_answers.plain(text) == own_answers.plain(answer)]
    return places[0] if len(places) == 1 else None


READINGS: dict[str, Callable[[str, list[str]], int | None]] = {  # how an answer names one of the options
    "letter": _by_letter,
    "index_from_0": lambda answer, options: _by_index(answer, options, 0),
    "index_from_1": lambda answer, options: _by_index(answer, options, 1),
    "text": _by_text,
}


def _reading(rows: list[dict[str, Any]], source: ProblemsSource) -> str:
    """The one of `READINGS` by which answers name options: as the source states, or as nearly all ``rows`` can be read.

    Raises DatasetError where there is none, or several that contradict each other.
    """
    if source.answer_as:
        return source.answer_as
    given = []
    for row in rows:
        try:
            given.append((_written(row["answer"]), _options(row)))
        except ValueError:
            continue  # a fault, which is told with the others
    read = {name: [reading(*one) for one in given] for name, reading in READINGS.items()}
    misses = {name: places.count(None) for name, places in read.items()}
    likely = [name for name in READINGS if misses[name] <= MOST_EMPTY * len(given)]
    best = min(misses, key=misses.__getitem__)
    if misses[best] > len(given) / 2:
        raise DatasetError(
            f"{source.repo}: answers such as {', '.join(repr(answer) for answer, _ in given[:SHOWN])} are neither letters nor "
            "indices nor texts of the choices; check `columns`, or set `answer_as`"
        )
    for places in zip(*(read[name] for name in likely), strict=True):
        if len({*places} - {None}) > 1:
            raise DatasetError(
                f"{source.repo}: answers can be read as {' and as '.join(likely)}: set `answer_as` to one of these"
            )
    return best
