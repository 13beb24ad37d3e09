"""The rubric: five dimensions of reasoning quality with anchored levels, the judge's messages, schema and answers.

Dimensions as in "Decomposing the Delta" (arXiv 2604.08723), section 3; the wording of the levels is ours, since the
paper's judge prompt is not public.
"""

import contextlib
import json
from typing import Any

from prefdelta.study.dimensions import DIMENSIONS, LEVELS

RUBRIC = {
    "factuality": (
        "Does the trace use the problem's numbers and conditions as they are stated?",
        "none are used as stated",
        "about half are used as stated",
        "all are used as stated",
    ),
    "strategy_coherence": (
        "Is the overall plan, that is, which operations in which order, the one the problem asks for?",
        "no part of the plan fits the problem",
        "about half of the plan fits the problem",
        "the whole plan fits the problem",
    ),
    "step_coherence": (
        "Does each step follow from the steps before it, and the final answer from the last step?",
        "no step follows from the one before it",
        "about half of the steps follow",
        "every step and the final answer follow",
    ),
    "computational_precision": (
        "Taken by itself, is each calculation carried out correctly?",
        "no calculation is right",
        "about half of the calculations are right",
        "every calculation is right",
    ),
    "signal_to_noise": (
        "How much of the text serves the solution?",
        "none of the text does",
        "about half of the text does",
        "all of the text does",
    ),
}

_THOUGHT_END = "</think>"


def _system(dimensions: tuple[str, ...]) -> str:
    anchored = [
        f"{name}: {question}\n  1 = {low}\n  3 = {middle}\n  5 = {high}"
        for name, (question, low, middle, high) in RUBRIC.items()
        if name in dimensions
    ]
    if len(dimensions) == 1:
        how_many, scope = "one dimension, with", "this dimension only: a trace can be weak in it and strong in others"
    else:
        how_many = "five dimensions, each with"
        scope = "each dimension by itself: a trace can be strong in one and weak in another"
    return (
        f"You grade the quality of a reasoning trace for a problem, in {how_many} a whole level from 1 to 5. "
        f"Grade {scope}, and a wrong final answer alone "
        "is no reason for low levels. Levels 2 and 4 lie between their neighbours.\n\n"
        + "\n".join(anchored)
        + "\n\nAnswer with a JSON object that has exactly these keys and whole numbers as values: "
        + ", ".join(dimensions)
        + "."
    )


def response_format(dimensions: tuple[str, ...] = DIMENSIONS) -> dict[str, Any]:
    """The `response_format` of a request: a JSON schema of a level for each of ``dimensions``."""
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer", "enum": list(LEVELS)} for name in dimensions},
        "required": list(dimensions),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "ratings", "strict": True, "schema": schema}}


def messages(problem: str, trace: str, dimensions: tuple[str, ...] = DIMENSIONS) -> list[dict[str, str]]:
    """The chat messages that ask for ratings in all ``dimensions`` or in one.

    The rubric comes first, then the problem, then the trace, so that a server's prefix cache serves what requests share.
    """
    return [
        {"role": "system", "content": _system(dimensions)},
        {"role": "user", "content": f"<problem>\n{problem}\n</problem>\n<trace>\n{trace}\n</trace>"},
    ]


def parse(content: str | None, dimensions: tuple[str, ...] = DIMENSIONS) -> tuple[dict[str, int | None], str | None]:
    """Ratings by dimension from a judge's answer, and why any is missing (None where none is).

    The answer is a JSON object, or a text that holds exactly one, in a code block or not. A rating that cannot be read, or that
    stands twice, is missing (None): it never becomes a number.
    """
    missing: dict[str, int | None] = dict.fromkeys(dimensions)
    if not content:
        return missing, "empty answer"
    try:
        answer = _DECODER.decode(content)
    except (ValueError, RecursionError):  # also numbers and nesting beyond Python's limits
        found = _objects(content.rpartition(_THOUGHT_END)[2])
        if len(found) != 1:
            return missing, "more than one JSON object" if found else "not JSON"
        answer = found[0]
    if not isinstance(answer, dict):
        return missing, "not a JSON object"
    ratings = {name: level if type(level := answer.get(name)) is int and level in LEVELS else None for name in dimensions}
    return ratings, "no level from 1 to 5" if None in ratings.values() else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a name that stands twice has no value."""
    names = [name for name, _ in pairs]
    return {name: value if names.count(name) == 1 else None for name, value in pairs}


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in ``text`` that stand in no other braces: what an object that was cut short holds is no answer."""
    found = []
    place = depth = 0
    while place < len(text):
        if text[place] == "{" and depth == 0:
            with contextlib.suppress(ValueError, RecursionError):
                answer, place = _DECODER.raw_decode(text, place)
                found.append(answer)
                continue
        depth = max(0, depth + (text[place] == "{") - (text[place] == "}"))
        place += 1
    return found
