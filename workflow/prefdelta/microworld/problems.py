"""Problems of the micro-world: one latent skill (chains of operations on numbers of two digits) under three surfaces."""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import add, mul, sub

DOMAINS = ("arithmetic", "program", "story")


def _by_digit(operator: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda number, operand: 10 * (operator(number // 10, operand) % 10) + operator(number % 10, operand) % 10


# Of a number of two digits each digit by itself, modulo 10 and without carry: as little to learn as of single digits, but an
# answer is met by chance in one case of a hundred.
OPERATORS = {symbol: _by_digit(operator) for symbol, operator in (("+", add), ("-", sub), ("*", mul))}
# Operations that can be undone: a wrong number never becomes right again by itself. Without 5, which + and - treat alike.
OPERANDS = {"+": (1, 2, 3, 4, 6, 7), "-": (1, 2, 3, 4, 6, 7), "*": (3, 7, 9)}
CONTEXTS = [(operator, operand) for operator, operands in OPERANDS.items() for operand in operands]
VERBS = {"+": ("finds", "gets"), "-": ("loses", "gives"), "*": ("scales", "grows")}
NAMES = ("Ann", "Bo", "Cy", "Di")
OPERATOR_OF_VERB = {verb: operator for operator, verbs in VERBS.items() for verb in verbs}

EVALUATION_SHARE = 0.25
LABELS = "abcdefgh"  # the operations of a problem are lettered, as the questions of an exercise sheet are
ANSWER = re.compile(r"#(\d\d)")

_START = {"arithmetic": re.compile(r"(\d\d)"), "program": re.compile(r"x=(\d\d)"), "story": re.compile(r"[A-Z][a-z]+ has (\d\d)")}
_CLAUSE = {
    "arithmetic": re.compile(r"([-+*])(\d)"),
    "program": re.compile(r"x([-+*])=(\d)"),
    "story": re.compile(rf"({'|'.join(OPERATOR_OF_VERB)}) (\d)"),
}


@dataclass(frozen=True)
class Problem:
    """``start`` has two digits; ``operations`` are (operator, digit), applied from left to right."""

    domain: str
    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def results(self) -> list[int]:
        """The value after each operation; the last one is the answer."""
        values = [self.start]
        for operator, operand in self.operations:
            values.append(OPERATORS[operator](values[-1], operand))
        return values[1:]

    @property
    def answer(self) -> str:
        return f"{self.results[-1]:02d}"


def random_problem(domain: str, n_operations: int, rng: random.Random) -> Problem:
    """A uniformly random problem of ``domain`` with ``n_operations`` of `CONTEXTS`."""
    return Problem(domain, rng.randint(0, 99), tuple(rng.choices(CONTEXTS, k=n_operations)))


def render(problem: Problem, rng: random.Random) -> str:
    """The prompt's text. Only stories use ``rng`` (names and verbs); `parse` gives the problem back from any of them."""
    if problem.domain == "arithmetic":
        start, clauses = f"{problem.start:02d}", [f"{operator}{n}" for operator, n in problem.operations]
    elif problem.domain == "program":
        start, clauses = f"x={problem.start:02d}", [f"x{operator}={n}" for operator, n in problem.operations]
    else:
        start = f"{rng.choice(NAMES)} has {problem.start:02d}"
        clauses = [f"{rng.choice(VERBS[operator])} {n}" for operator, n in problem.operations]
    return start + "".join(f";{label}){clause}" for label, clause in zip(LABELS, clauses, strict=False))


def parse(text: str) -> Problem:
    """The problem that ``text`` states. Raises ValueError where it is none of the micro-world's."""
    start, *clauses = re.split(r";[a-h]\)", text)
    for domain in DOMAINS:
        found = _START[domain].fullmatch(start)
        steps = [_CLAUSE[domain].fullmatch(clause) for clause in clauses]
        if found and steps and all(steps):
            operations = tuple((OPERATOR_OF_VERB.get(m[1], m[1]), int(m[2])) for m in steps if m)
            return Problem(domain, int(found[1]), operations)
    raise ValueError(f"not a micro-world problem: {text!r}")


def held_out(text: str) -> bool:
    """Whether a micro-world problem belongs to evaluation: decided by its text's hash, so no split needs to know another."""
    return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] < 256 * EVALUATION_SHARE


def final_answer(trace: str) -> str | None:
    """The digits of the last ``#digits`` statement, or None where the trace gives no answer."""
    found = [match[1] for statement in trace.split(";") if (match := ANSWER.fullmatch(statement.strip()))]
    return found[-1] if found else None
