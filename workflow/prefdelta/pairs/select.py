"""Selecting pairs: which of the pairs of a (chosen, rejected) a selection of the grammar takes."""

from hashlib import blake2b

import numpy as np
import polars as pl

from prefdelta.study.selections import POOLED, STRATA, Selection, SelectionError

QUARTERS = 4  # of a band: equal numbers of each make the deltas of two pair sets alike that are drawn from the same band


def _shuffled(key: str, seed: str, salt: str) -> pl.Expr:
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


def _stratum(selection: Selection) -> pl.Expr:
    """A number for each pair; pairs with the same number are alike in what the selection holds fixed."""
    correctness = 2 * pl.col("chosen_correct").cast(pl.Int64) + pl.col("rejected_correct")
    match selection:
        case Selection(within="length"):
            return _lengths(1.1)
        case Selection(within="correctness"):
            return correctness
        case Selection(kind="matched"):
            # How hard a prompt is, in quarters: the share of right answers, of both generators, in its own pairs.
            right = pl.mean_horizontal(pl.col("chosen_correct", "rejected_correct").cast(pl.Float64)).mean().over("prompt_id")
            quarter = (right * 4).floor().clip(upper_bound=3).cast(pl.Int64)
            return (_lengths(1.25) * len(STRATA) + correctness) * 4 + quarter
    return pl.lit(0, pl.Int64)


def _lengths(step: float) -> pl.Expr:
    """Tokens of both sides as one number: their ratio in steps of a factor ``step``, their (geometric) mean in steps of 1.25.

    Equal lengths are in the middle of a step of the ratio. Both, because a long problem leaves more room for a delta.
    """
    chosen, rejected = (pl.col(f"{side}_tokens").clip(lower_bound=1) for side in ("chosen", "rejected"))
    mean = (chosen * rejected).sqrt().log(1.25).round().cast(pl.Int64)
    return (chosen / rejected).log(step).round().cast(pl.Int64) * 1000 + mean


def candidates(pairs: pl.LazyFrame, selection: Selection, seed: str) -> pl.LazyFrame:
    """Of whole prompts' ``pairs`` (columns of `tables.Pairs`) those that `select` may take, with what it goes by.

    Where a selection pools samples, ``pairs`` hold every sample of a prompt over every other; where it goes by margins, they
    have ``chosen_logp`` and ``rejected_logp`` (`off_policy.logp_per_token`).
    That is ``_by`` and then ``_order``, from the least, within each ``_stratum``. A matched control, itself random, also has
    ``_top_by`` and ``_top_order`` of the top pairs that it is matched with. What goes by correctness takes graded answers only.
    ``seed`` holds the judge's name, too: random controls of several judges are draws of their own, and what is compared with
    them does not share their luck.
    """
    if selection.reads_correctness:
        pairs = pairs.drop_nulls(["chosen_correct", "rejected_correct"])
    if selection.reads_references:
        pairs = pairs.drop_nulls(["chosen_logp", "rejected_logp"])
    order = _shuffled("pair_id", seed, f"{selection.kind}{selection.within or ''}{selection.draw}")
    columns = {"_by": pl.lit(0.0), "_order": order, "_stratum": _stratum(selection)}
    match selection.kind:
        case "full":
            return pairs
        case "min":
            return pairs.filter(pl.col(f"delta_{selection.criterion}") >= selection.least)
        case "top":
            columns |= {"_by": -pl.col(f"delta_{selection.criterion}")}
        case "bottom":
            columns |= {"_by": pl.col(f"delta_{selection.criterion}")}
        case "matched":
            columns |= {"_top_by": -pl.col(f"delta_{selection.criterion}"), "_top_order": _shuffled("pair_id", seed, "top0")}
        case "band":
            width = selection.below - selection.least
            # Rounded, as deltas are, so that one on an edge is in the quarter that begins there.
            place = ((pl.col(f"delta_{selection.criterion}") - selection.least) * (QUARTERS / width)).round(6).floor()
            pairs = pairs.filter(place.is_between(0, QUARTERS - 1))
            columns |= {"_stratum": place.cast(pl.Int64)}
        case pooled if pooled in POOLED:
            one = _of_each_prompt(pairs, selection).sort(order)
            pairs = one.unique("prompt_id", keep="first").sort("prompt_id")
            # As far as they can be, the same prompts for every way to choose a pair.
            columns |= {"_order": _shuffled("prompt_id", seed, "pooled")}
            if selection.reads_references:
                # Of the implicit reward, BeeS prefers large margins (arXiv 2502.14560), arXiv 2508.04149 small ones.
                margin = pl.col("chosen_logp") - pl.col("rejected_logp")
                columns |= {"_by": -margin if pooled == "largest_margin" else margin}
        case stratum if stratum in STRATA:
            in_all = pl.struct("chosen_correct", "rejected_correct").n_unique().over("prompt_id") == len(STRATA)
            correct = (pl.col("chosen_correct") == STRATA[stratum][0]) & (pl.col("rejected_correct") == STRATA[stratum][1])
            one = pairs.filter(in_all).filter(correct).sort(order)
            pairs = one.unique("prompt_id", keep="first").sort("prompt_id")
            # The same prompts for every stratum: their order must not depend on which stratum is asked for.
            columns |= {"_order": _shuffled("prompt_id", seed, "strata")}
    if selection.within == "both_correct":
        pairs = pairs.filter("chosen_correct", "rejected_correct")
    return pairs.with_columns(**columns)


def _of_each_prompt(pairs: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
    """The pairs of which a selection that pools samples takes one from each prompt; several where ratings are tied.

    ``pairs`` hold every sample over every other, so their chosen sides are the samples, all equally often. A prompt whose samples
    are all rated alike has none. Highest over lowest is usual; with many samples, the lowest are outliers, and the one nearest to
    two standard deviations below the mean does better (arXiv 2502.16825).
    """
    if selection.kind == "right_over_wrong":
        return pairs.filter(pl.col("chosen_correct"), ~pl.col("rejected_correct"))
    chosen, rejected = (pl.col(f"{side}_{selection.criterion}") for side in ("chosen", "rejected"))
    delta = pl.col(f"delta_{selection.criterion}")
    differing = pairs.with_columns(_low=(chosen.mean() - 2 * chosen.std(ddof=0)).over("prompt_id"))
    differing = differing.filter(delta > 0, chosen.round(9) == chosen.round(9).max().over("prompt_id"))
    if selection.kind != "best_over_low":
        return differing.filter(delta == delta.max().over("prompt_id")).drop("_low")
    away = (rejected - pl.col("_low")).abs().round(9)
    return differing.filter(away == away.min().over("prompt_id")).drop("_low")


def select(pairs: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
    """The selected rows of `candidates`, in their order. Which they are depends on ids and the seed only.

    Of each pair only a few numbers are in memory. Ties in a delta are broken by ``_order``. Raises SelectionError where fewer
    than k pairs (or prompts with such pairs; of a band, equally many in each quarter) exist.
    """
    found, most = pairs.select(pl.len()).collect().item(), selection.k or 1
    if found < most:
        crossed = "prompts with such a pair" if selection.pools else "prompts with pairs in all four strata"
        available = f"{found} {crossed if selection.crosses_samples else 'pairs'}"
        both = " whose answers are both right" if selection.within == "both_correct" else ""
        raise SelectionError(f"the selection asks for {most}, but there are only {available}{both}")
    if not selection.k:
        return pairs
    ranks = pairs.select(pl.selectors.starts_with("_")).collect(engine="streaming")
    if selection.kind == "matched":
        as_top = ranks.select(_by="_top_by", _order="_top_order", _stratum=pl.lit(0))
        alike = ranks.filter(as_top.select(_first(as_top, {0: most})).to_series())
        shares = dict(alike["_stratum"].value_counts().iter_rows())
    elif selection.kind == "band":
        shares = _in_equal_parts(ranks["_stratum"], most, selection)
    else:
        shares = _in_proportion(ranks["_stratum"], most)
    return pairs.filter(_first(ranks, shares)).drop(pl.selectors.starts_with("_"))


def _in_proportion(strata: pl.Series, k: int) -> dict[int, int]:
    """How many of ``k`` fall to each stratum by its size, within one pair.

    What is rounded are the numbers up to each stratum. So strata too small for a pair share one with those next to them, and
    small ones at one end, such as of very unequal lengths, are not preferred to those at the other.
    """
    numbers, sizes = np.unique(strata.to_numpy(), return_counts=True)
    up_to = (sizes.astype(np.int64).cumsum() * k + len(strata) // 2) // len(strata)
    return dict(zip(numbers.tolist(), np.diff(up_to, prepend=0).tolist(), strict=True))


def _in_equal_parts(quarters: pl.Series, k: int, band: Selection) -> dict[int, int]:
    """A quarter of ``k`` for each quarter of a band, within one pair. Raises SelectionError where one has fewer pairs."""
    shares = dict(enumerate(np.diff(np.arange(QUARTERS + 1) * k // QUARTERS).tolist()))
    there = dict(quarters.value_counts().iter_rows())
    for quarter, share in shares.items():
        if there.get(quarter, 0) < share:
            low, high = (band.least + (quarter + end) * (band.below - band.least) / QUARTERS for end in (0, 1))
            most = QUARTERS * min(there.get(number, 0) for number in shares)
            raise SelectionError(
                f"the selection asks for {share} pairs with a delta from {low:g} to {high:g}, but there are only "
                f"{there.get(quarter, 0)}: this band has room for {most}"
            )
    return shares


def _first(ranks: pl.DataFrame, shares: dict[int, int]) -> pl.Expr:
    """Whether a row is among the first of its ``_stratum``, as many as ``shares`` says, by ``_by`` and then ``_order``."""
    last_by, last_order = {}, {}
    for (stratum,), part in ranks.partition_by("_stratum", as_dict=True).items():
        if n := shares.get(stratum, 0):
            # The n-th in the order of both numbers, without sorting.
            by = last_by[stratum] = np.partition(part["_by"].to_numpy(), n - 1)[n - 1].item()
            tied = part.filter(_by=by)["_order"].to_numpy()
            left = n - part.filter(pl.col("_by") < by).height
            last_order[stratum] = np.partition(tied, left - 1)[left - 1].item()
    number = pl.col("_stratum")
    by = number.replace_strict(last_by, default=None, return_dtype=pl.Float64)
    order = number.replace_strict(last_order, default=None, return_dtype=pl.UInt64)
    return (pl.col("_by") < by) | ((pl.col("_by") == by) & (pl.col("_order") <= order))


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
