"""The shift: how far a training has moved a policy, by log-probabilities of its own answers and of held-out pairs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from prefdelta.checkpoints.load import load_model, load_tokenizer
from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.checkpoints.memory import fitting
from prefdelta.evaluate.settings import ShiftSettings
from prefdelta.generate.chat import tokenised
from prefdelta.study.lattice import SIDES, Side
from prefdelta.tables.io import read_batches, read_table, write_table
from prefdelta.tables.stages import Pairs, Predictions, Prompts, Shifts, Tempered, Traces
from prefdelta.train.reference import completion_sums
from prefdelta.train.settings import ReferenceRun

MOST = 100  # answers of a suite at one temperature, and pairs: a mean over so many is far surer than what differs between seeds
TRAINED_AT = 1.0  # temperature of the log-probabilities that training compares


@fitting("lower run.batch_size, or the methods' max_length")
def measure_shift(
    manifest: Path,
    base: Path,
    suites: list[Path],
    predictions: Path,
    tempered: Path | None,
    pairs: Path | None,
    held_out: dict[Side, Path],
    shifts: Path,
    *,
    settings: ShiftSettings,
    run: ReferenceRun,
    threads: int,
) -> None:
    """Writes the `Shifts` of the checkpoint of ``manifest`` from the untuned policy of ``base``, which may be the same.

    Answers are one to each item of ``predictions`` and, of an untuned policy, of the ``tempered`` ones; of a suite with more than
    `MOST` items, to evenly spaced ones. Log-probabilities are at the temperature that they were sampled at, of all tokens, also
    where sampling left out unlikely ones (``top_p``, ``top_k``). The mean of logp - base_logp over answers is an estimate without
    bias of KL(checkpoint || policy); that of the entropies of next tokens, summed over an answer, is one of the entropy of
    answers, by the chain rule (Cover and Thomas 2006, theorem 2.5.1), with less noise than their mean surprisal.

    ``held_out`` has the traces of the two sides' generators whose pairs are held out: those whose traces are in none of
    ``pairs``, which the checkpoint was trained on; evenly spaced ones where they are more than `MOST`.

    Raises ManifestError, CheckpointError and OutOfMemoryError.
    """
    torch.set_num_threads(threads)
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    sampled = read_table(predictions, Predictions).filter(decoding="sampled").with_columns(temperature=settings.temperature)
    texts = [_answers(sampled, items)]
    if tempered:
        texts.append(_answers(read_table(tempered, Tempered), items))
    if pairs:
        texts.append(_held_out(held_out, pairs).with_columns(ended=True))
    folders = [checked_folder(manifest), checked_folder(base)]
    tokenizer = load_tokenizer(folders[-1], padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    by_temperature = pl.concat(texts, how="diagonal").partition_by("temperature", maintain_order=True)
    parts, sequences = zip(*(_tokens(tokenizer, part, settings) for part in by_temperature), strict=True)
    sums: dict[Path, list[NDArray[np.float64]]] = {}
    for folder in dict.fromkeys(folders):
        model = load_model(folder, settings.dtype).to("cuda" if torch.cuda.is_available() else "cpu").eval()
        sums[folder] = [
            completion_sums(
                model, tokenizer, tokens, run.batch_size, temperature=part["temperature"][0], outputs=("log_probs", "entropy")
            )
            for tokens, part in zip(sequences, parts, strict=True)
        ]
        del model  # the memory is for the next one
    found = []
    for part, own, untuned in zip(parts, sums[folders[0]], sums[folders[-1]], strict=True):
        # Rounding can take what is nearly 0 to its other side.
        columns = {"logp": own[:, 0].clip(max=0), "base_logp": untuned[:, 0].clip(max=0), "entropy": own[:, 1].clip(min=0)}
        found.append(part.hstack(pl.DataFrame(columns)))
    write_table(pl.concat(found).select(list(Shifts.to_schema().columns)), Shifts, shifts)


def _answers(answers: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """The answers (`Predictions` or `Tempered`) to evenly spaced items of each suite at each temperature, with prompts."""
    order = ["temperature", "suite", "task", "item_id"]
    several = answers.select(order).unique().sort(order).partition_by("temperature", "suite", maintain_order=True)
    kept = answers.join(pl.concat([_spaced(part) for part in several]), on=order, how="semi").sort(*order, "sample")
    prompts = items.select("prompt", item_id="prompt_id")
    columns = {"kind": pl.lit("answer"), "key": pl.col("item_id"), "ended": pl.col("finish_reason") == "stop"}
    columns["n_sampled"] = pl.col("n_tokens")
    asked = kept.join(prompts, on="item_id", maintain_order="left")
    return asked.select("temperature", "suite", "task", "prompt", "text", "sample", **columns)


def _held_out(traces: dict[Side, Path], pairs: Path) -> pl.DataFrame:
    """A row for each side of evenly spaced pairs of ``traces`` of which no side is in ``pairs``."""
    ids = ["chosen_trace_id", "rejected_trace_id"]
    batches = read_batches(pairs, Pairs, ["pair_id", *ids])
    seen = pl.concat([batch[column] for batch in batches for column in ids])
    sides = [
        read_table(traces[side], Traces)
        .filter(~pl.col("trace_id").is_in(seen.implode()))
        .select("prompt_id", "sample", "prompt", pl.col("trace_id", "text").name.prefix(f"{side}_"))
        for side in SIDES
    ]
    both = sides[0].join(sides[1].drop("prompt"), on=["prompt_id", "sample"]).sort("prompt_id", "sample")
    kept = _spaced(both.with_columns(key=pl.concat_str(ids, separator="|")))
    return pl.concat(
        kept.select("key", "prompt", text=f"{side}_text", kind=pl.lit(side), temperature=pl.lit(TRAINED_AT)) for side in SIDES
    )


def _spaced(frame: pl.DataFrame) -> pl.DataFrame:
    """At most `MOST` rows of ``frame``, evenly spaced."""
    return frame.gather_every(max(1, math.ceil(len(frame) / MOST)))


def _tokens(tokenizer: Any, texts: pl.DataFrame, settings: ShiftSettings) -> tuple[pl.DataFrame, list[tuple[list[int], int]]]:
    """One text of each key with its ``n_tokens``; and the token ids of its prompt and it together, and where it begins.

    Of several answers that is the first whose text is as many tokens as were sampled, else the first of all: other tokens are not
    what the checkpoint wrote. An answer that was cut off by its limit has no end; a trace is cut as in training.
    """
    whole = tokenised(tokenizer, texts["prompt"].to_list(), texts["text"].to_list(), settings.chat)
    found = []
    for (ids, start), kind, ended in zip(whole, texts["kind"], texts["ended"], strict=True):
        most = len(ids) if kind == "answer" else max(settings.max_length, start)
        found.append((ids[:most] if ended else ids[:-1], start))
    lengths = pl.Series([len(ids) - start for ids, start in found], dtype=pl.Int64)
    numbered = texts.with_columns(n_tokens=lengths, row=pl.int_range(pl.len()))
    best = numbered.sort(pl.col("n_tokens") != pl.col("n_sampled"), "sample").unique(["kind", "key"], keep="first").sort("row")
    return best, [found[row] for row in best["row"]]
