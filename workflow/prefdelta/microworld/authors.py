"""Authors write traces of known skill: each of the five dimensions has its own fault, injected at a known rate a step."""

import random

from prefdelta.microworld.problems import LABELS, OPERANDS, OPERATORS, Problem

FILLER = ("hmm", "well", "let me see", "ok so")
STEP = {"arithmetic": "{}){}{} to {}={}", "program": "{})x{}={} to {}={}", "story": "{}){}{} to {}={} left"}

FaultRates = dict[str, float]  # dimension -> probability of its fault at each step; a missing dimension is faultless


def write(problem: Problem, faults: FaultRates, rng: random.Random) -> str:
    """A trace for ``problem``: one statement for each step and ``#answer`` at the end, joined by semicolons.

    The faults, each in its own dimension only:

    - factuality: a number of the problem is misread;
    - strategy_coherence: another operation than the problem's is applied;
    - step_coherence: a step starts from another number than the last step's result;
    - computational_precision: a step's result is computed wrongly;
    - signal_to_noise: a filler statement stands before the step.
    """

    def slips(dimension: str) -> bool:
        return rng.random() < faults.get(dimension, 0.0)

    def another(digit: int, digits: range = range(10)) -> int:
        return rng.choice([n for n in digits if n != digit])

    statements: list[str] = []
    value = problem.start
    for position, (operator, operand) in enumerate(problem.operations):
        if slips("signal_to_noise"):
            statements.append(rng.choice(FILLER))
        if slips("factuality"):
            if position == 0 and rng.random() < 0.5:
                value = another(value)
            else:
                operand = another(operand, OPERANDS)
        if slips("strategy_coherence"):
            operator = rng.choice([o for o in OPERATORS if o != operator])
        if position > 0 and slips("step_coherence"):
            value = another(value)
        result = OPERATORS[operator](value, operand)
        if slips("computational_precision"):
            result = another(result)
        statements.append(STEP[problem.domain].format(LABELS[position], operator, operand, value, result))
        value = result
    return ";".join([*statements, f"#{value}"])
