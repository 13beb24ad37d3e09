"""Evaluation: a checkpoint's answers to every item of every suite, sampled (avg@k) and greedy, kept item by item."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from prefdelta.generate import Sampler
from prefdelta.manifest import read_manifest
from prefdelta.microworld.problems import final_answer
from prefdelta.tables import Predictions, Prompts, read_table, write_table


def evaluate_model(
    manifest: Path | str,
    suites: Sequence[Path | str],
    output: Path | str,
    *,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    threads: int,
) -> None:
    """Writes the `Predictions` of the checkpoint of ``manifest`` on ``suites`` (`Prompts` tables), all in the same batches."""
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    read_manifest(manifest)
    sampler = Sampler(Path(manifest).parent, threads)
    prompts = items["prompt"].to_list()
    limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "seed": seed}
    sampled = sampler.sample(prompts, n=samples, temperature=temperature, **limits)
    greedy = sampler.sample(prompts, n=1, temperature=0.0, **limits)
    rows = [
        {
            "item_id": item["prompt_id"],
            "suite": item["split"],
            "task": item["task"],
            "decoding": decoding,
            "sample": number,
            "text": completion.text,
            "answer": (answer := final_answer(completion.text)),
            "correct": answer == item["answer"],
            "n_tokens": completion.n_tokens,
            "finish_reason": completion.finish_reason,
        }
        for decoding, answers in (("sampled", sampled), ("greedy", greedy))
        for item, several in zip(items.iter_rows(named=True), answers, strict=True)
        for number, completion in enumerate(several)
    ]
    write_table(pl.DataFrame(rows, schema_overrides={"answer": pl.String}), Predictions, output)
