"""The selection grammar: which pairs of a (chosen, rejected) an arm trains on."""

import re
from dataclasses import dataclass

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import CRITERIA

STRATA = {  # stratum -> (chosen is correct, rejected is correct)
    "correct_over_wrong": (True, False),
    "wrong_over_correct": (False, True),
    "both_correct": (True, True),
    "both_wrong": (False, False),
}
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
  {{stratum}}-{{k}}                      k prompts that have pairs in all four strata, one pair of this stratum from each
  flipped-{{k}}                        k pairs at random, chosen and rejected exchanged
where k and d are whole numbers, criterion is one of {", ".join(CRITERIA)},
alike is one of length (of both answers), correctness (of both answers), both_correct (only pairs of two right answers),
and stratum is one of {", ".join(STRATA)}"""

# One name for each selection, so that none is trained twice: no leading zeros, no other script's digits, and not more digits than
# numbers are told apart by.
_K, _D, _X = "([1-9][0-9]{0,14})", "(0|[1-9][0-9]{0,14})", r"((?:0|[1-9][0-9]{0,2})(?:\.[0-9]{0,8}[1-9])?)"
_CRITERION, _WITHIN = f"({'|'.join(CRITERIA)})", f"(?:-within_({'|'.join(WITHIN)}))?"
_FORMS = {
    "full": re.compile("full"),
    "top": re.compile(f"top{_K}-{_CRITERION}{_WITHIN}"),
    "bottom": re.compile(f"bottom{_K}-{_CRITERION}{_WITHIN}"),
    "random": re.compile(f"random{_K}{_WITHIN}-draw{_D}"),
    "matched": re.compile(f"matched{_K}-{_CRITERION}-draw{_D}"),
    "min": re.compile(f"min{_X}-{_CRITERION}"),
    **{stratum: re.compile(f"{stratum}-{_K}") for stratum in STRATA},
    "flipped": re.compile(f"flipped-{_K}"),
}
_WITHOUT_DRAW = re.compile(f"random{_K}{_WITHIN}|matched{_K}-{_CRITERION}")


class SelectionError(PrefdeltaError):
    """A selection is malformed, or asks for more pairs than there are."""


@dataclass(frozen=True)
class Selection:
    """A parsed selection. ``k`` is None for full and min, ``criterion`` is set for top, bottom, matched and min only."""

    kind: str
    k: int | None = None
    criterion: str | None = None
    within: str | None = None
    draw: int = 0
    least: float = 0.0

    @property
    def crosses_samples(self) -> bool:
        """Whether any sample of chosen may meet any of rejected (strata), or only samples of the same number."""
        return self.kind in STRATA


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
                case [_, k]:
                    return Selection(kind, k=int(k))
    raise SelectionError(f"'{name}' is not a selection. The forms are:\n{GRAMMAR}")


def draw_for_seed(name: str, seed: int) -> str:
    """The selection of one cell: an arm's ``random500`` or ``matched500-overall`` is another draw for every seed."""
    return f"{name}-draw{seed}" if _WITHOUT_DRAW.fullmatch(name) else name
