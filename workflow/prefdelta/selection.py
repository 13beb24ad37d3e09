"""The selection grammar: which pairs of a (chosen, rejected) an arm trains on."""

import re
from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

from prefdelta.errors import PrefdeltaError
from prefdelta.rubric import CRITERIA

STRATA = {  # stratum -> (chosen is correct, rejected is correct)
    "correct_over_wrong": (True, False),
    "wrong_over_correct": (False, True),
    "both_correct": (True, True),
    "both_wrong": (False, False),
}
GRAMMAR = f"""\
  full                     every rated pair
  top{{k}}-{{criterion}}       the k pairs with the largest delta
  bottom{{k}}-{{criterion}}    the k pairs with the smallest delta
  random{{k}}-draw{{d}}        k pairs at random; another d is another draw
  min{{x}}-{{criterion}}       every pair whose delta is at least x levels
  {{stratum}}-{{k}}            k prompts that have pairs in all four strata, one pair of this stratum from each
  flipped-{{k}}              k pairs at random, chosen and rejected exchanged
where k and d are whole numbers, criterion is one of {", ".join(CRITERIA)}, and stratum one of {", ".join(STRATA)}"""

# One name for each selection, so that none is trained twice: no leading zeros, no other script's digits.
_K, _D, _X = "([1-9][0-9]*)", "(0|[1-9][0-9]*)", r"((?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?)"
_CRITERION = f"({'|'.join(CRITERIA)})"
_FORMS = {
    "full": re.compile("full"),
    "top": re.compile(f"top{_K}-{_CRITERION}"),
    "bottom": re.compile(f"bottom{_K}-{_CRITERION}"),
    "random": re.compile(f"random{_K}-draw{_D}"),
    "min": re.compile(f"min{_X}-{_CRITERION}"),
    **{stratum: re.compile(f"{stratum}-{_K}") for stratum in STRATA},
    "flipped": re.compile(f"flipped-{_K}"),
}


class SelectionError(PrefdeltaError):
    """A selection is malformed, or asks for more pairs than there are."""


@dataclass(frozen=True)
class Selection:
    """A parsed selection. ``k`` is None for full and min, ``criterion`` is set for top, bottom and min only."""

    kind: str
    k: int | None = None
    criterion: str | None = None
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
                case ["top" | "bottom", k, criterion]:
                    return Selection(kind, k=int(k), criterion=criterion)
                case ["random", k, draw]:
                    return Selection(kind, k=int(k), draw=int(draw))
                case ["min", least, criterion]:
                    return Selection(kind, criterion=criterion, least=float(least))
                case [_, k]:
                    return Selection(kind, k=int(k))
    raise SelectionError(f"'{name}' is not a selection. The forms are:\n{GRAMMAR}")


def draw_for_seed(name: str, seed: int) -> str:
    """The selection of one cell: an arm's ``random500`` is another draw for every seed; others stay as they are."""
    return f"{name}-draw{seed}" if name.startswith("random") and name.removeprefix("random").isdigit() else name


def _shuffled(key: str, seed: int, salt: str) -> pl.Expr:
    # The hash of polars is stable only within a version, and this order decides what is trained on: so blake2 of the id.
    def digest(ids: pl.Series) -> pl.Series:
        hashes = [blake2b(f"{seed}/{salt}/{i}".encode(), digest_size=8).digest() for i in ids]
        return pl.Series([int.from_bytes(h) for h in hashes], dtype=pl.UInt64)

    return pl.col(key).map_batches(digest, return_dtype=pl.UInt64)


def select(pairs: pl.LazyFrame, selection: Selection, seed: int) -> pl.DataFrame:
    """The selected rows of ``pairs`` (columns of `tables.Pairs`), in an order that depends on ids and ``seed`` only.

    Ties in a delta are broken by a seeded hash of the pair's id. Raises SelectionError where fewer than k pairs (or, for a
    stratum, prompts with pairs in all four strata) exist.
    """
    salt = f"{selection.kind}{selection.draw}"
    pairs = pairs.with_columns(_shuffled("pair_id", seed, salt).alias("_order"))
    delta = f"delta_{selection.criterion}"
    most = selection.k or 0
    match selection.kind:
        case "full":
            chosen = pairs.sort("_order")
        case "min":
            chosen = pairs.filter(pl.col(delta) >= selection.least).sort("_order")
        case "top" | "bottom":
            chosen = pairs.sort(delta, "_order", descending=[selection.kind == "top", False]).head(most)
        case "random" | "flipped":
            chosen = pairs.sort("_order").head(most)
        case stratum:
            sides = pl.struct("chosen_correct", "rejected_correct")
            in_all = sides.n_unique().over("prompt_id") == len(STRATA)
            correct = (pl.col("chosen_correct") == STRATA[stratum][0]) & (pl.col("rejected_correct") == STRATA[stratum][1])
            # The same prompts for every stratum: their order must not depend on which stratum is asked for.
            chosen = (
                pairs.filter(in_all)
                .filter(correct)
                .sort("_order")
                .unique("prompt_id", keep="first", maintain_order=True)
                .with_columns(_shuffled("prompt_id", seed, "strata").alias("_prompt_order"))
                .sort("_prompt_order")
                .drop("_prompt_order")
                .head(most)
            )
    frame = chosen.drop("_order").collect()
    if len(frame) < max(most, 1):
        available = f"{len(frame)} prompts with pairs in all four strata" if selection.crosses_samples else f"{len(frame)} pairs"
        raise SelectionError(f"the selection asks for {max(most, 1)}, but there are only {available}")
    return flip(frame) if selection.kind == "flipped" else frame


def flip(pairs: pl.DataFrame) -> pl.DataFrame:
    """The same pairs with chosen and rejected exchanged and every delta negated."""
    names = {name: name for name in pairs.columns}
    for name in pairs.columns:
        if name == "chosen" or name.startswith("chosen_"):
            other = "rejected" + name.removeprefix("chosen")
            names[name], names[other] = other, name
    return pairs.rename(names).select(
        (-pl.col(name)).alias(name) if name.startswith("delta_") else pl.col(name) for name in pairs.columns
    )
