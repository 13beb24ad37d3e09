"""Gates: training does not start on pairs that can't answer a question."""

from pathlib import Path

import polars as pl

from prefdelta.checkpoints.load import load_tokenizer
from prefdelta.generate.chat import tokenised
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.lattice import SIDES, Side
from prefdelta.study.recipe import Gates
from prefdelta.tables.io import read_batches, read_table
from prefdelta.tables.stages import Pairs, Ratings, References
from prefdelta.train.settings import PolicySettings


class GateError(PrefdeltaError):
    """Training must not start: the message names the generator, the figure, the threshold, its key, and the file to look at."""


def check_gates(
    pairs: Path,
    ratings: dict[Side, Path],
    references: dict[Side, Path],
    checkpoint: Path,
    settings: PolicySettings,
    gates: Gates,
) -> None:
    """Checks a cell's inputs before any model is loaded.

    ``references`` have the lengths of traces; without them the tokenizer of ``checkpoint`` (a folder) counts. Raises GateError
    where, by the thresholds ``gates``, the judge gave too few readable ratings of a generator (``judge_coverage``), too many
    pairs have two equal texts (``identical_pairs``), too many answers of a side could not be graded (``ungraded``), or
    ``max_length`` cuts too many traces of a side that the recipe trains on (``truncated``).
    """
    cell, recipe = settings.cell, settings.recipe
    generators = {"chosen": cell.chosen, "rejected": cell.rejected}
    for side, path in ratings.items():
        coverage = _coverage(path)
        if coverage < gates.judge_coverage:
            raise GateError(
                f"only {coverage:.1%} of judge {cell.judge}'s ratings of generator {generators[side]} are readable, below "
                f"gates.judge_coverage {gates.judge_coverage}: see the column `reason` of {path}"
            )
    by_side = [f"{side}{column}" for side in SIDES for column in ("", "_trace_id", "_generator", "_correct")]
    frame = pl.concat(list(read_batches(pairs, Pairs, ["pair_id", "prompt", *by_side])))
    identical = (frame["chosen"] == frame["rejected"]).mean()
    assert isinstance(identical, float)
    if identical > gates.identical_pairs:
        raise GateError(
            f"in {identical:.1%} of the pairs, generators {cell.chosen} and {cell.rejected} wrote the same text, above "
            f"gates.identical_pairs {gates.identical_pairs}: see the columns `chosen` and `rejected` of {pairs}"
        )
    for side in SIDES:
        ungraded = frame[f"{side}_correct"].null_count() / len(frame)
        if ungraded > gates.ungraded:
            raise GateError(
                f"the answers of {ungraded:.1%} of the {side} traces, by generator {frame[f'{side}_generator'][0]}, could not be "
                f"graded, above gates.ungraded {gates.ungraded}: see the rows without `{side}_correct` of {pairs}"
            )
    for side in recipe.reads:
        cut = _truncated(frame, side, references, checkpoint, settings)
        if cut > gates.truncated:
            raise GateError(
                f"{cut:.1%} of the {side} traces, by generator {frame[f'{side}_generator'][0]}, are longer than "
                f"methods.{cell.method}.max_length {recipe.max_length}, above gates.truncated {gates.truncated}: see the "
                f"column `{side}_tokens` of {pairs}"
            )


def _coverage(ratings: Path) -> float:
    """The share of readable ratings."""
    counts = [(batch["rating"].count(), len(batch)) for batch in read_batches(ratings, Ratings)]
    readable, asked = map(sum, zip(*counts, strict=True))
    return readable / asked


def _truncated(
    frame: pl.DataFrame, side: Side, references: dict[Side, Path], checkpoint: Path, settings: PolicySettings
) -> float:
    """The share of a side's traces that are longer, prompt included, than the recipe's ``max_length`` tokens."""
    max_length = settings.recipe.max_length
    if not references:
        tokenizer = load_tokenizer(checkpoint)
        sequences = tokenised(tokenizer, frame["prompt"].to_list(), frame[side].to_list(), settings.chat)
        return sum(len(ids) > max_length for ids, _ in sequences) / len(frame)
    # Of a flipped pair, the chosen trace is in the other generator's table.
    tables = pl.concat([read_table(path, References) for path in dict.fromkeys(references.values())])
    long = tables.filter(pl.col("n_prompt_tokens") + pl.col("n_tokens") > max_length)["trace_id"].unique()
    return len(frame.filter(pl.col(f"{side}_trace_id").is_in(long.implode()))) / len(frame)
