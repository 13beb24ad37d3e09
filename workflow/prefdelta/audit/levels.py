"""All ratings of one generator's traces by one judge, as arrays."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdelta.measure.intervals import Array
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.tables.io import read_batches
from prefdelta.tables.stages import Ratings, Traces

NOT_ASKED, MISSING = -1, 0  # in place of a level
_LIGHT = ["trace_id", "prompt_id", "generator", "sample", "correct", "n_tokens"]


def read_levels(traces: Path, ratings: Path) -> tuple[pl.DataFrame, NDArray[np.int8]]:
    """Traces without texts, by id, and all their ratings: (trace, repeat, dimension) levels, `MISSING` or `NOT_ASKED`."""
    light = pl.concat(list(read_batches(traces, Traces, _LIGHT))).sort("trace_id")
    places = light.select("trace_id").with_row_index("row")
    number = pl.col("dimension").cast(pl.Enum(DIMENSIONS)).to_physical().alias("number")
    parts = [
        batch.select("trace_id", "repeat", number, pl.col("rating").fill_null(MISSING))
        .join(places, on="trace_id", maintain_order="left")
        .drop("trace_id")
        for batch in read_batches(ratings, Ratings)
    ]
    found = pl.concat(parts)
    repeats = 1 + int(found["repeat"].max() or 0)  # type: ignore[arg-type]
    levels = np.full((len(light), repeats, len(DIMENSIONS)), NOT_ASKED, np.int8)
    levels[found["row"].to_numpy(), found["repeat"].to_numpy(), found["number"].to_numpy()] = found["rating"].to_numpy()
    return light, levels


def with_overall(levels: NDArray[np.int8]) -> Array:
    """(trace, repeat, criterion) ratings: the five dimensions and their mean, NaN where one can't be read."""
    readable = np.where(levels > MISSING, levels, np.nan)
    return np.concatenate([readable, readable.mean(axis=2, keepdims=True)], axis=2)


def mean_ratings(levels: NDArray[np.int8]) -> Array:
    """(trace, criterion) means over readable repeats, overall their mean, as in pairs; NaN where there is none."""
    given = levels > MISSING
    sums, numbers = np.where(given, levels, 0).sum(axis=1), given.sum(axis=1)
    means = np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)
    return np.concatenate([means, means.mean(axis=1, keepdims=True)], axis=1)
