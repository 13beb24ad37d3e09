"""The rubric: five dimensions of reasoning quality with anchored levels, the judge's messages, schema and answers.

Dimensions as in "Decomposing the Delta" (arXiv 2604.08723), section 3; the wording of the levels is ours, since the
paper's judge prompt is not public.
"""

import json

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
DIMENSIONS = tuple(RUBRIC)
CRITERIA = (*DIMENSIONS, "overall")  # what a pair can be selected by: a dimension, or the mean of all
LEVELS = range(1, 6)

SYSTEM = (
    "You grade the quality of a reasoning trace for a problem, in five dimensions, each with a whole level from 1 to 5. "
    "Grade each dimension by itself: a trace can be strong in one and weak in another, and a wrong final answer alone "
    "is no reason for low levels. Levels 2 and 4 lie between their neighbours.\n\n"
    + "\n".join(
        f"{name}: {question}\n  1 = {low}\n  3 = {middle}\n  5 = {high}" for name, (question, low, middle, high) in RUBRIC.items()
    )
    + "\n\nAnswer with a JSON object that has exactly these keys and whole numbers as values: "
    + ", ".join(DIMENSIONS)
    + "."
)

RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "ratings",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {name: {"type": "integer", "enum": list(LEVELS)} for name in DIMENSIONS},
            "required": list(DIMENSIONS),
            "additionalProperties": False,
        },
    },
}


def messages(problem: str, trace: str) -> list[dict[str, str]]:
    """The chat messages that ask for a rating: the rubric first, so that a server's prefix cache holds it."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"<problem>\n{problem}\n</problem>\n<trace>\n{trace}\n</trace>"},
    ]


def parse(content: str | None) -> tuple[dict[str, int | None], str | None]:
    """Ratings by dimension from a judge's answer, and why any is missing (None where none is).

    A rating that cannot be read is missing (None): it never becomes a number.
    """
    missing: dict[str, int | None] = dict.fromkeys(DIMENSIONS)
    if not content:
        return missing, "empty answer"
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):  # also numbers and nesting beyond Python's limits
        return missing, "not JSON"
    if not isinstance(answer, dict):
        return missing, "not a JSON object"
    ratings = {name: level if type(level := answer.get(name)) is int and level in LEVELS else None for name in DIMENSIONS}
    return ratings, "no level from 1 to 5" if None in ratings.values() else None
