"""Authors write traces of known skill: slips happen at random, habits are wrong in the same way each time."""

import random
from collections.abc import Collection

from prefdelta.microworld.habits import Habit
from prefdelta.microworld.problems import LABELS, OPERANDS, OPERATORS, Problem
from prefdelta.study.models import Author

FILLER = ("hmm", "well", "let me see", "ok so")
STEP = {
    "arithmetic": "{}){}{} to {:02d}={:02d}",
    "program": "{})x{}={} to {:02d}={:02d}",
    "story": "{}){}{} to {:02d}={:02d} left",
}


def write(problem: Problem, author: Author, rng: random.Random, habits: Collection[Habit] = ()) -> str:
    """A trace for ``problem``: one statement for each step and ``#answer`` at the end, joined by semicolons.

    Before it is written, each of ``habits`` is held or not, by the author's probability; one that is held meets each step with
    its operation. The faults, each in its own dimension only, by slip (by habit):

    - factuality: a number of the problem is misread (always the same other one);
    - strategy_coherence: another operation than the problem's is applied (always the same other one);
    - step_coherence: a step does not start from the last result but from another number (from the one before it);
    - computational_precision: a step's result is another number (the right one with both digits moved by the same amount);
    - signal_to_noise: a filler statement stands before the step (always the same one).
    """
    held = {(habit.operator, habit.operand): habit for habit in habits if rng.random() < author.holds(habit.dimension)}

    def slips(dimension: str) -> bool:
        return rng.random() < author.rate(dimension)

    def another(number: int) -> int:
        return (number + rng.randint(1, 99)) % 100

    statements: list[str] = []
    value = before = problem.start
    for position, (operator, operand) in enumerate(problem.operations):
        habit = held.get((operator, operand))
        wrong = habit.dimension if habit else None
        if slips("signal_to_noise"):
            statements.append(rng.choice(FILLER))
        elif habit and wrong == "signal_to_noise":
            statements.append(FILLER[habit.way(len(FILLER))])
        if slips("factuality"):
            if position == 0 and rng.random() < 0.5:
                value = another(value)
            else:
                operand = rng.choice([n for n in OPERANDS[operator] if n != operand])
        elif habit and wrong == "factuality":
            others = [n for n in OPERANDS[operator] if n != operand]
            operand = others[habit.way(len(others))]
        if slips("strategy_coherence"):
            operator = rng.choice([o for o in OPERATORS if o != operator])
        elif habit and wrong == "strategy_coherence":
            operator = [o for o in OPERATORS if o != operator][habit.way(2)]
        if position > 0 and slips("step_coherence"):
            value = another(value)
        elif position > 0 and wrong == "step_coherence":
            value = before
        result = OPERATORS[operator](value, operand)
        if slips("computational_precision"):
            result = another(result)
        elif habit and wrong == "computational_precision":
            result = OPERATORS["+"](result, 1 + habit.way(9))
        statements.append(STEP[problem.domain].format(LABELS[position], operator, operand, value, result))
        before, value = value, result
    return ";".join([*statements, f"#{value:02d}"])
