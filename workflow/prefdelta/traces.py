"""Traces: what a generator answers to the training prompts."""

from pathlib import Path

import polars as pl

from prefdelta.generate import Sampler
from prefdelta.manifest import read_manifest
from prefdelta.microworld.problems import final_answer
from prefdelta.tables import Prompts, Traces, read_table, write_table


def sample_traces(
    prompts: Path | str,
    manifest: Path | str,
    output: Path | str,
    *,
    generator: str,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    threads: int,
) -> None:
    """Writes the `Traces` table of ``generator``: ``samples`` completions for every prompt by the checkpoint of ``manifest``."""
    problems = read_table(prompts, Prompts)
    read_manifest(manifest)
    sampler = Sampler(Path(manifest).parent, threads)
    completions = sampler.sample(
        problems["prompt"].to_list(),
        n=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
    )
    rows = [
        {
            "trace_id": f"{problem['prompt_id']}:{generator}:{number}",
            "prompt_id": problem["prompt_id"],
            "generator": generator,
            "sample": number,
            "prompt": problem["prompt"],
            "text": completion.text,
            "reasoning": completion.text.rpartition(";")[0],
            "answer": (answer := final_answer(completion.text)),
            "correct": answer == problem["answer"],
            "n_tokens": completion.n_tokens,
            "finish_reason": completion.finish_reason,
        }
        for problem, several in zip(problems.iter_rows(named=True), completions, strict=True)
        for number, completion in enumerate(several)
    ]
    write_table(pl.DataFrame(rows, schema_overrides={"answer": pl.String}), Traces, output)
