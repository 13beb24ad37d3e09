"""The selection grammar: which pairs of a (chosen, rejected) an arm trains on."""

import re
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
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
    """A 64-bit hash of the ids ``key``, which does not depend on platform and versions: it decides what is trained on."""

    def digest(ids: pl.Series) -> pl.Series:
        # The ids' bytes as rows of 64-bit words, mixed in one after the other (by the finaliser of MurmurHash3).
        n_words = int(ids.str.len_bytes().to_numpy().max(initial=1) - 1) // 8 + 1
        words = np.array(ids.cast(pl.Binary).to_list(), dtype=f"S{8 * n_words}").view("<u8").reshape(-1, n_words)
        hashes = np.full(len(ids), start, np.uint64)
        for word in words.T:
            mixed = hashes ^ word
            for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
                mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
            hashes = np.where(word, mixed ^ (mixed >> np.uint64(33)), hashes)  # a shorter id's padding does not count
        return pl.Series(hashes)

    start = int.from_bytes(blake2b(f"{seed}/{salt}".encode(), digest_size=8).digest())
    return pl.col(key).map_batches(digest, return_dtype=pl.UInt64)


def candidates(pairs: pl.LazyFrame, selection: Selection, seed: int) -> pl.LazyFrame:
    """Of whole prompts' ``pairs`` (columns of `tables.Pairs`) those that `select` may take; ``_order`` is what it goes by."""
    order = _shuffled("pair_id", seed, f"{selection.kind}{selection.draw}").alias("_order")
    match selection.kind:
        case "full":
            return pairs
        case "min":
            return pairs.filter(pl.col(f"delta_{selection.criterion}") >= selection.least)
        case "top" | "bottom" | "random" | "flipped":
            return pairs.with_columns(order)
        case stratum:
            in_all = pl.struct("chosen_correct", "rejected_correct").n_unique().over("prompt_id") == len(STRATA)
            correct = (pl.col("chosen_correct") == STRATA[stratum][0]) & (pl.col("rejected_correct") == STRATA[stratum][1])
            one = pairs.filter(in_all).filter(correct).sort(order).unique("prompt_id", keep="first").sort("prompt_id")
            # The same prompts for every stratum: their order must not depend on which stratum is asked for.
            return one.with_columns(_shuffled("prompt_id", seed, "strata").alias("_order"))


def select(pairs: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
    """The selected rows of `candidates`, in their order. Which they are depends on ids and the seed only.

    Of each pair only two numbers are in memory. Ties in a delta are broken by ``_order``. Raises SelectionError where fewer than
    k pairs (or, for a stratum, prompts with pairs in all four strata) exist.
    """
    found, most = pairs.select(pl.len()).collect().item(), selection.k or 1
    if found < most:
        available = f"{found} prompts with pairs in all four strata" if selection.crosses_samples else f"{found} pairs"
        raise SelectionError(f"the selection asks for {most}, but there are only {available}")
    if not selection.k:
        return pairs
    by, order = pl.lit(0.0), pl.col("_order")
    if selection.criterion:
        by = pl.col(f"delta_{selection.criterion}") * (-1 if selection.kind == "top" else 1)
    ranks = pairs.select(by=by, order=order).collect(engine="streaming")
    # The k-th in the order of both numbers, without sorting.
    last = np.partition(ranks["by"].to_numpy(), most - 1)[most - 1]
    tied = ranks.filter(by=last)["order"].to_numpy()
    left = most - ranks.filter(pl.col("by") < last).height
    last_tied = np.partition(tied, left - 1)[left - 1]
    return pairs.filter((by < last) | ((by == last) & (order <= last_tied))).drop("_order")


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
