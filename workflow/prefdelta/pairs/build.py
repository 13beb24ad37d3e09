"""Preference pairs: two generators' traces of the same prompt, with the judge's mean ratings and the deltas.

Nothing here holds a whole table. Ratings are summed batch by batch into a file; prompts are paired without texts, a range of ids
at a time, into another; texts join the pairs that are selected. Any order of rows gives the same pairs, but files that are sorted
by id, as they are written, are read faster: row groups outside a range are skipped.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from prefdelta.pairs.off_policy import logp_per_token
from prefdelta.pairs.select import candidates, flip, select
from prefdelta.pairs.settings import PairsSettings
from prefdelta.study.dimensions import Dimensions
from prefdelta.study.lattice import SIDES, Side
from prefdelta.study.selections import Selection, SelectionError, parse
from prefdelta.tables.io import read_batches, read_dimensions, sink_batches, write_batches
from prefdelta.tables.stages import Pairs, Ratings, Traces

PART = 2**16  # traces of a generator, or pairs with their texts, that are in memory at once
PART_TOKENS = 2**26  # fewer pairs where texts are long
_LIGHT = ["trace_id", "prompt_id", "generator", "sample", "correct", "n_tokens"]  # of a trace: all that pairs need but texts


def sum_ratings(ratings: Path, output: Path) -> None:
    """Writes the sum of each trace's readable ratings in each dimension, and their number (``n_{dimension}``).

    A trace whose rows do not lie together has several rows, each a part of its sums.
    """
    rated = read_dimensions(ratings)
    sink_batches((_sums(batch, rated) for batch in read_batches(ratings, Ratings)), output)


def _sums(batch: pl.DataFrame, rated: Dimensions) -> pl.DataFrame:
    # Runs of one trace in numpy: a group_by of strings takes twice as long, and this is where the time goes.
    new = batch["trace_id"].ne_missing(batch["trace_id"].shift()).to_numpy()
    names, kind = rated.names, np.int64 if rated.whole else np.float64
    number = pl.coalesce(pl.when(dimension=name).then(pl.lit(i, pl.UInt8)) for i, name in enumerate(names))
    cells = (np.cumsum(new) - 1) * len(names) + batch.select(number).to_series().to_numpy()
    n_cells = np.count_nonzero(new) * len(names)
    columns = {"trace_id": batch["trace_id"].filter(new)}
    for prefix, values, of in (("", batch["rating"].fill_null(0), kind), ("n_", batch["rating"].is_not_null(), np.int64)):
        sums = np.bincount(cells, values.to_numpy(), n_cells).astype(of).reshape(-1, len(names))
        columns |= {f"{prefix}{name}": pl.Series(sums[:, i]) for i, name in enumerate(names)}
    return pl.DataFrame(columns)


def prompt_ranges(traces: Path) -> list[pl.Expr]:
    """Checks the `Traces` but their texts, and cuts their prompt ids into ranges of about `PART` traces, in increasing order."""
    some = [batch["prompt_id"].gather_every(PART) for batch in read_batches(traces, Traces, _LIGHT)]
    starts = pl.concat(some).unique().sort()[1:]
    above = [pl.lit(True), *(pl.col("prompt_id") >= start for start in starts)]
    below = [*(pl.col("prompt_id") < start for start in starts), pl.lit(True)]
    return [low & high for low, high in zip(above, below, strict=True)]


def _between(ids: pl.Series) -> pl.Expr:
    return pl.col(ids.name).is_between(pl.lit(ids.min()), pl.lit(ids.max()))


def rated(traces: Path, sums: Path, within: pl.Expr, of: Dimensions) -> pl.DataFrame:
    """Traces of a range of prompts, without texts, with their mean rating in each dimension and the mean of these, ``overall``.

    A mean is null where no rating is readable; ``overall`` where a mean is. ``sums`` is the file of `sum_ratings`, ``of``
    what was rated.
    """
    part = pl.scan_parquet(traces).filter(within).select(_LIGHT).collect()
    near = _between(part["trace_id"])
    found = pl.scan_parquet(sums).filter(near).collect()
    if found["trace_id"].n_unique() < len(found):  # some are at the edge of two batches
        found = found.group_by("trace_id").agg(pl.all().sum())
    means = [pl.when(pl.col(f"n_{name}") > 0).then(pl.col(name) / pl.col(f"n_{name}")).alias(name) for name in of.names]
    if not of.whole:  # sums of real numbers end in other digits in another order
        means = [mean.round(9) for mean in means]
    overall = pl.mean_horizontal(of.names, ignore_nulls=False)
    means_of_traces = found.select("trace_id", *means).with_columns(overall=overall)
    # In the order of the traces: means over a prompt's would end in other digits in another.
    return part.join(means_of_traces, on="trace_id", how="left", maintain_order="left")


def pair_up(chosen: pl.DataFrame, rejected: pl.DataFrame, selection: Selection, criteria: tuple[str, ...]) -> pl.LazyFrame:
    """All pairs of two `rated` generators that ``selection`` is made from: columns of `tables.Pairs` but ``judge`` and texts, and
    ``chosen_logp`` and ``rejected_logp`` where traces have a ``logp``; sorted by prompt and id.

    Sample i of chosen meets sample i of rejected, or every sample of a prompt every other, where the selection crosses samples;
    where it pools them, those of both generators are on both sides. A trace that has no readable rating in some dimension is left
    out: it has no delta.
    """
    if selection.pools:
        chosen = rejected = pl.concat([chosen, rejected])
    keys = ["prompt_id"] if selection.crosses_samples else ["prompt_id", "sample"]
    kept = {
        "trace_id": "{}_trace_id",
        "generator": "{}_generator",
        "correct": "{}_correct",
        "n_tokens": "{}_tokens",
        **{name: f"{{}}_{name}" for name in (*criteria, "logp") if name in chosen.columns},
    }

    def side(frame: pl.DataFrame, name: str) -> pl.LazyFrame:
        renamed = [pl.col(old).alias(new.format(name)) for old, new in kept.items()]
        return frame.lazy().drop_nulls("overall").select(*keys, *renamed)

    # Rounded, so that equal differences of ratings are equal deltas: else rounding errors would break their ties.
    deltas = [(pl.col(f"chosen_{name}") - pl.col(f"rejected_{name}")).round(9).alias(f"delta_{name}") for name in criteria]
    pair_id = pl.concat_str("chosen_trace_id", "rejected_trace_id", separator="|")
    joined = side(chosen, "chosen").join(side(rejected, "rejected"), on=keys)
    if selection.pools:
        joined = joined.filter(pl.col("chosen_trace_id") != pl.col("rejected_trace_id"))
    return joined.with_columns(*deltas, pair_id=pair_id).sort("prompt_id", "pair_id")


def with_texts(pairs: pl.DataFrame, sources: Mapping[Side, list[Path]]) -> pl.DataFrame:
    """``pairs`` with ``prompt``, ``chosen`` and ``rejected``, from the `Traces` that each side may be in."""
    near = _between(pairs["prompt_id"])
    for side, files in sources.items():
        key = f"{side}_trace_id"
        texts = pl.scan_parquet(files).filter(near, pl.col("trace_id").is_in(pairs[key].implode()))
        wanted = [pl.col("trace_id").alias(key), pl.col("text").alias(side), *(["prompt"] if side == "chosen" else [])]
        pairs = pairs.join(texts.select(wanted).collect(engine="streaming"), on=key, maintain_order="left")
    return pairs


def build_pairs(
    chosen_traces: Path,
    chosen_ratings: Path,
    rejected_traces: Path,
    rejected_ratings: Path,
    references: list[Path],
    pairs: Path,
    *,
    settings: PairsSettings,
) -> None:
    """Writes the `Pairs` of one selection, sorted by prompt and id.

    ``references`` are those of both generators under the untuned policy, if the selection reads them.
    Raises SelectionError where there are fewer pairs (or a stratum is smaller) than the selection asks for.
    """
    wanted = parse(settings.selection)
    with TemporaryDirectory() as folder:
        chosen_sums, rejected_sums, light = (Path(folder, f"{name}.parquet") for name in ("chosen", "rejected", "pairs"))
        sum_ratings(chosen_ratings, chosen_sums)
        sum_ratings(rejected_ratings, rejected_sums)
        prompt_ranges(rejected_traces)
        rated_by = read_dimensions(chosen_ratings)
        logps = logp_per_token(references, settings.max_length) if references else None

        def parts() -> Iterator[pl.DataFrame]:
            for within in prompt_ranges(chosen_traces):
                sides = (
                    rated(chosen_traces, chosen_sums, within, rated_by),
                    rated(rejected_traces, rejected_sums, within, rated_by),
                )
                if logps is not None:
                    sides = sides[0].join(logps, on="trace_id", how="left"), sides[1].join(logps, on="trace_id", how="left")
                yield candidates(
                    pair_up(*sides, wanted, rated_by.criteria), wanted, f"{settings.seed}/{settings.judge}"
                ).collect()

        sink_batches(parts(), light)
        try:
            selected = select(pl.scan_parquet(light), wanted)
        except SelectionError as error:
            raise SelectionError(f"{pairs}: {error}") from None
        columns = list(Pairs.by(rated_by).to_schema().columns)
        tokens = selected.select(pl.col("chosen_tokens", "rejected_tokens").mean()).collect(engine="streaming").row(0)
        size = max(1, min(PART, int(PART_TOKENS / (sum(tokens) + 1))))
        both = [chosen_traces, rejected_traces]
        sources: dict[Side, list[Path]] = {side: both if wanted.pools else [both[place]] for place, side in enumerate(SIDES)}

        def whole(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
            for part in parts:
                full = with_texts(part, sources).with_columns(judge=pl.lit(settings.judge)).select(columns)
                yield flip(full) if wanted.kind == "flipped" else full

        write_batches(whole(selected.collect_batches(chunk_size=size, engine="streaming")), Pairs, pairs, rated_by)
