"""Preference pairs: two generators' traces of the same prompt, with the judge's mean ratings and the deltas."""

from pathlib import Path

import polars as pl

from prefdelta.rubric import CRITERIA, DIMENSIONS
from prefdelta.selection import SelectionError, parse, select
from prefdelta.tables import Pairs, Ratings, Traces, read_table, write_table


def mean_ratings(ratings: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each trace: its mean rating in each dimension (null where none is readable) and their mean, ``overall``."""
    means = [pl.col("rating").filter(pl.col("dimension") == name).mean().alias(name) for name in DIMENSIONS]
    overall = pl.mean_horizontal(DIMENSIONS, ignore_nulls=False)
    return ratings.group_by("trace_id").agg(means).with_columns(overall=overall)


def rated(traces: pl.LazyFrame, ratings: pl.LazyFrame) -> pl.LazyFrame:
    """Traces with their mean rating in each dimension and ``overall`` (the mean of the five).

    A trace that has no readable rating in some dimension is left out: it has no delta.
    """
    return traces.join(mean_ratings(ratings).drop_nulls(), on="trace_id")


def pair_up(chosen: pl.LazyFrame, rejected: pl.LazyFrame, *, cross_samples: bool) -> pl.LazyFrame:
    """Pairs of two `rated` generators: columns of `tables.Pairs` but ``judge``.

    Sample i of chosen meets sample i of rejected; with ``cross_samples`` every sample meets every other of its prompt.
    """
    keys = ["prompt_id"] if cross_samples else ["prompt_id", "sample"]
    kept = {
        "trace_id": "{}_trace_id",
        "text": "{}",
        "generator": "{}_generator",
        "correct": "{}_correct",
        "n_tokens": "{}_tokens",
        **{name: f"{{}}_{name}" for name in CRITERIA},
    }

    def side(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
        return frame.select(*keys, "prompt", *(pl.col(old).alias(new.format(name)) for old, new in kept.items()))

    # Rounded, so that equal differences of ratings are equal deltas: else rounding errors would break their ties.
    deltas = [(pl.col(f"chosen_{name}") - pl.col(f"rejected_{name}")).round(9).alias(f"delta_{name}") for name in CRITERIA]
    pair_id = pl.concat_str("chosen_trace_id", "rejected_trace_id", separator="|")
    joined = side(chosen, "chosen").join(side(rejected, "rejected").drop("prompt"), on=keys)
    return joined.with_columns(*deltas, pair_id=pair_id)


def build_pairs(
    chosen_traces: Path | str,
    chosen_ratings: Path | str,
    rejected_traces: Path | str,
    rejected_ratings: Path | str,
    output: Path | str,
    *,
    judge: str,
    selection: str,
    seed: int,
) -> None:
    """Writes the `Pairs` of one selection. Raises SelectionError where a stratum is smaller than the selection asks for."""
    wanted = parse(selection)
    chosen = rated(read_table(chosen_traces, Traces).lazy(), read_table(chosen_ratings, Ratings).lazy())
    rejected = rated(read_table(rejected_traces, Traces).lazy(), read_table(rejected_ratings, Ratings).lazy())
    pairs = pair_up(chosen, rejected, cross_samples=wanted.crosses_samples).with_columns(judge=pl.lit(judge))
    try:
        selected = select(pairs, wanted, seed)
    except SelectionError as error:
        raise SelectionError(f"{output}: {error}") from None
    write_table(selected.select(list(Pairs.to_schema().columns)), Pairs, output)
