"""All ratings of one generator's traces by one judge, as arrays."""

from pathlib import Path

import numpy as np
import polars as pl

from prefdelta.measure.intervals import Array
from prefdelta.tables.io import read_batches, read_dimensions
from prefdelta.tables.stages import Ratings, Traces

NOT_ASKED, MISSING = -np.inf, np.nan  # in place of a rating
_LIGHT = ["trace_id", "prompt_id", "generator", "sample", "correct", "n_tokens"]


def read_levels(traces: Path, ratings: Path) -> tuple[pl.DataFrame, Array]:
    """Traces without texts, by id, and all their ratings: (trace, repeat, dimension) levels, `MISSING` or `NOT_ASKED`."""
    names = read_dimensions(ratings).names
    light = pl.concat(list(read_batches(traces, Traces, _LIGHT))).sort("trace_id")
    places = light.select("trace_id").with_row_index("row")
    number = pl.col("dimension").cast(pl.Enum(names)).to_physical().alias("number")
    parts = [
        batch.select("trace_id", "repeat", number, pl.col("rating").cast(pl.Float64).fill_null(MISSING))
        .join(places, on="trace_id", maintain_order="left")
        .drop("trace_id")
        for batch in read_batches(ratings, Ratings)
    ]
    found = pl.concat(parts)
    repeats = 1 + int(found["repeat"].max() or 0)  # type: ignore[arg-type]
    levels = np.full((len(light), repeats, len(names)), NOT_ASKED)
    levels[found["row"].to_numpy(), found["repeat"].to_numpy(), found["number"].to_numpy()] = found["rating"].to_numpy()
    return light, levels


def with_overall(levels: Array) -> Array:
    """(trace, repeat, criterion) ratings: the dimensions and their mean, NaN where one can't be read."""
    readable = np.where(np.isfinite(levels), levels, np.nan)
    return np.concatenate([readable, readable.mean(axis=2, keepdims=True)], axis=2)


def mean_ratings(levels: Array) -> Array:
    """(trace, criterion) means over readable repeats, overall their mean, as in pairs; NaN where there is none."""
    given = np.isfinite(levels)
    sums, numbers = np.where(given, levels, 0).sum(axis=1), given.sum(axis=1)
    means = np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)
    return np.concatenate([means, means.mean(axis=1, keepdims=True)], axis=1)
