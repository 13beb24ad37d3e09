"""The selection grammar: which pairs of a (chosen, rejected) an arm trains on."""

import re
from dataclasses import dataclass

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS, OVERALL

STRATA = {  # stratum -> (chosen is correct, rejected is correct)
    "correct_over_wrong": (True, False),
    "wrong_over_correct": (False, True),
    "both_correct": (True, True),
    "both_wrong": (False, False),
}
POOLED = ("best_over_worst", "best_over_low", "largest_margin", "smallest_margin", "right_over_wrong")
WITHIN = ("length", "correctness", "both_correct")
GRAMMAR = f"""\
  full                               every rated pair
  top{{k}}-{{criterion}}                 the k pairs with the largest delta
  bottom{{k}}-{{criterion}}              the k pairs with the smallest delta
  random{{k}}-draw{{d}}                  k pairs at random; another d is another draw
  top{{k}}-{{criterion}}-within_{{alike}}, bottom{{k}}-{{criterion}}-within_{{alike}}, random{{k}}-within_{{alike}}-draw{{d}}
                                     the same from each group of pairs that are alike, in proportion to its size; k in all
  matched{{k}}-{{criterion}}-draw{{d}}     k pairs at random that are, in correctness, lengths and prompt difficulty, like
                                     the k pairs with the largest delta
  min{{x}}-{{criterion}}                 every pair whose delta is at least x levels
  band{{k}}-{{criterion}}-{{x}}to{{y}}-draw{{d}}
                                     k pairs at random whose delta is at least x and below y levels, equally many of each
                                     quarter of the band; a level below 0 is written minus0.5
  {{stratum}}-{{k}}                      k prompts that have pairs in all four strata, one pair of this stratum from each
  flipped-{{k}}                        k pairs at random, chosen and rejected exchanged
k prompts, and of each one pair from the samples of both generators together (as of one policy, sampled twice):
  best_over_worst-{{k}}-{{criterion}}    the highest over the lowest rating
  best_over_low-{{k}}-{{criterion}}      the highest rating over that which is nearest to two standard deviations below the mean
  largest_margin-{{k}}-{{criterion}}     the best_over_worst pairs of the k prompts with the largest margin: the policy's
                                     log-probability of a token, in chosen minus rejected
  smallest_margin-{{k}}-{{criterion}}    those with the smallest
  right_over_wrong-{{k}}               a right answer over a wrong one
where k and d are whole numbers, criterion is {OVERALL} or a dimension of the judge's rubric: of the paper's, one of
{", ".join(DIMENSIONS)},
alike is one of length (of both answers), correctness (of both answers), both_correct (only pairs of two right answers),
and stratum is one of {", ".join(STRATA)}"""

# One name for each selection, so that none is trained twice: no leading zeros, no other script's digits, and not more digits than
# numbers are told apart by.
_K, _D, _X = "([1-9][0-9]{0,14})", "(0|[1-9][0-9]{0,14})", r"((?:0|[1-9][0-9]{0,2})(?:\.[0-9]{0,8}[1-9])?)"
_LEVEL = rf"((?!minus0(?!\.))(?:minus)?{_X[1:-1]})"
_CRITERION, _WITHIN = "((?!within_)[a-z][a-z0-9_]*)", f"(?:-within_({'|'.join(WITHIN)}))?"
_FORMS = {
    "full": re.compile("full"),
    "top": re.compile(f"top{_K}-{_CRITERION}{_WITHIN}"),
    "bottom": re.compile(f"bottom{_K}-{_CRITERION}{_WITHIN}"),
    "random": re.compile(f"random{_K}{_WITHIN}-draw{_D}"),
    "matched": re.compile(f"matched{_K}-{_CRITERION}-draw{_D}"),
    "min": re.compile(f"min{_X}-{_CRITERION}"),
    "band": re.compile(f"band{_K}-{_CRITERION}-{_LEVEL}to{_LEVEL}-draw{_D}"),
    **{kind: re.compile(f"{kind}-{_K}-{_CRITERION}") for kind in POOLED[:-1]},
    "right_over_wrong": re.compile(f"right_over_wrong-{_K}"),
    **{stratum: re.compile(f"{stratum}-{_K}") for stratum in STRATA},
    "flipped": re.compile(f"flipped-{_K}"),
}
_WITHOUT_DRAW = re.compile(f"random{_K}{_WITHIN}|matched{_K}-{_CRITERION}|band{_K}-{_CRITERION}-{_LEVEL}to{_LEVEL}")


class SelectionError(PrefdeltaError):
    """A selection is malformed, or asks for more pairs than there are."""


@dataclass(frozen=True)
class Selection:
    """A parsed selection. ``k`` is None for full and min; ``criterion`` is set where ratings decide.

    ``least``: the smallest delta of min and band (levels); ``below``: what deltas of a band stay below.
    """

    kind: str
    k: int | None = None
    criterion: str | None = None
    within: str | None = None
    draw: int = 0
    least: float = 0.0
    below: float = 0.0

    @property
    def pools(self) -> bool:
        """Whether the samples of both generators are one set, in which any may meet any other."""
        return self.kind in POOLED

    @property
    def crosses_samples(self) -> bool:
        """Whether any sample of a prompt may meet any other (then a prompt has one pair), or only samples of the same number."""
        return self.kind in STRATA or self.pools

    @property
    def reads_correctness(self) -> bool:
        """Whether it goes by which answers are right."""
        by_kind = self.kind in (*STRATA, "matched", "right_over_wrong")
        return by_kind or self.within in ("correctness", "both_correct")

    @property
    def reads_references(self) -> bool:
        """Whether it goes by log-probabilities under the untuned policy."""
        return self.kind in ("largest_margin", "smallest_margin")


def parse(name: str) -> Selection:
    """Parses a selection's name. Raises SelectionError with the grammar where it is malformed."""
    for kind, form in _FORMS.items():
        if match := form.fullmatch(name):
            match kind, *match.groups():
                case ["full"]:
                    return Selection(kind)
                case ["top" | "bottom", k, criterion, within]:
                    return Selection(kind, k=int(k), criterion=criterion, within=within)
                case ["random", k, within, draw]:
                    return Selection(kind, k=int(k), within=within, draw=int(draw))
                case ["matched", k, criterion, draw]:
                    return Selection(kind, k=int(k), criterion=criterion, draw=int(draw))
                case ["min", least, criterion]:
                    return Selection(kind, criterion=criterion, least=float(least))
                case ["band", k, criterion, low, high, draw]:
                    least, below = (float(level.replace("minus", "-")) for level in (low, high))
                    if least < below:
                        return Selection(kind, k=int(k), criterion=criterion, draw=int(draw), least=least, below=below)
                case [_, k, criterion]:
                    return Selection(kind, k=int(k), criterion=criterion)
                case [_, k]:
                    return Selection(kind, k=int(k))
    raise SelectionError(f"'{name}' is not a selection. The forms are:\n{GRAMMAR}")


def without_size(name: str) -> str:
    """A selection's name as the grammar has it: ``top{k}-overall`` of all sizes, ``min{x}-overall`` of all thresholds."""
    return re.sub(r"[\d.]+", "{x}" if name.startswith("min") else "{k}", name, count=1)


def draw_for_seed(name: str, seed: int) -> str:
    """The selection of one cell: an arm's ``random500``, ``matched500-overall`` or ``band500-overall-0to1`` is another draw for
    every seed."""
    return f"{name}-draw{seed}" if _WITHOUT_DRAW.fullmatch(name) else name
