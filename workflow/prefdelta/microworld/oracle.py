"""The exact oracle: grades any text as a trace for a problem, in all five dimensions and on the final answer."""

import re
from collections import Counter
from itertools import pairwise

from prefdelta.microworld.problems import OPERATORS, Problem, final_answer
from prefdelta.study.dimensions import DIMENSIONS

_STEP = re.compile(r"[a-h]\)x?([-+*])=?(\d) to (\d\d)=(\d\d)(?: left)?")


def grade(problem: Problem, trace: str) -> dict[str, float]:
    """Scores from 1 (worst) to 5 (faultless) for each dimension: 1 + 4 x the share of what is right.

    - factuality: the problem's numbers (start and operands, as a multiset) that the trace uses;
    - strategy_coherence: the positions at which the right operation is applied;
    - step_coherence: the links (step to step, last step to answer) whose second end repeats the first one's result;
    - computational_precision: the steps whose result follows from their own operands;
    - signal_to_noise: the characters that belong to steps and the last answer.

    Steps that are missing or too many count against the strategy, answers before the last one as noise. A text without any step
    scores 1 throughout.
    """
    statements = [statement.strip() for statement in trace.split(";")]
    steps = [(int(m[3]), m[1], int(m[2]), int(m[4])) for s in statements if (m := _STEP.fullmatch(s))]
    if not steps:
        return dict.fromkeys(DIMENSIONS, 1.0)
    answer = final_answer(trace)
    n_positions = max(len(problem.operations), len(steps))
    wanted = Counter([problem.start, *(operand for _, operand in problem.operations)])
    used = Counter([steps[0][0], *(operand for _, _, operand, _ in steps)])
    planned = zip(steps, problem.operations, strict=False)
    links = sum(after[0] == before[3] for before, after in pairwise(steps))
    signal = sum(len(s) + 1 for s in statements if _STEP.fullmatch(s)) + (len(f"#{answer};") if answer else 0) - 1
    shares = {
        "factuality": (wanted & used).total() / max(wanted.total(), used.total()),
        "strategy_coherence": sum(step[1] == operator for step, (operator, _) in planned) / n_positions,
        "step_coherence": (links + (answer == f"{steps[-1][3]:02d}")) / n_positions,
        "computational_precision": sum(OPERATORS[o](a, b) == c for a, o, b, c in steps) / len(steps),
        "signal_to_noise": signal / len(trace),
    }
    return {dimension: 1 + 4 * share for dimension, share in shares.items()}


def grade_step(before: str, statement: str) -> float:
    """The step coherence of one statement of a trace from what stands ``before`` it: 5 where it repeats the last result, else 1.

    A first step, and a statement that is neither step nor answer, has nothing to repeat: 5.
    """
    results = [m[4] for s in before.split(";") if (m := _STEP.fullmatch(s.strip()))]
    step = _STEP.fullmatch(statement)
    first = step[3] if step else final_answer(statement)
    return 1.0 if results and first is not None and int(first) != int(results[-1]) else 5.0


def review(problem: Problem, trace: str) -> str:
    """The checks behind `grade` written out, as a judge reasons before it rates.

    For each step its label, then for operation, operand, first number and result: what it should be (by the problem, by the last
    step, by the step's own numbers), what it is, and ``=`` where these are the same, else ``;``.
    """
    written, last = "", f"{problem.start:02d}"
    steps = [m for statement in trace.split(";") if (m := _STEP.fullmatch(statement.strip()))]
    for m, (operator, operand) in zip(steps, problem.operations, strict=False):
        due = [operator, str(operand), last, f"{OPERATORS[m[1]](int(m[3]), int(m[2])):02d}"]
        found = [m[1], m[2], m[3], m[4]]
        written += m[0][:2] + "".join(f"{a}{b}{'=' if a == b else ';'}" for a, b in zip(due, found, strict=True))
        last = m[4]
    return written
