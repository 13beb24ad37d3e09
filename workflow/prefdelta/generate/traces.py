"""Traces: what a generator answers to the training prompts."""

import logging
from pathlib import Path

import polars as pl

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.generate.completions import Request, complete
from prefdelta.generate.scoring import scored
from prefdelta.generate.settings import GenerationRun, TracesSettings
from prefdelta.run.errors import PrefdeltaError
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Prompts, Traces

log = logging.getLogger(__name__)


class TracesError(PrefdeltaError):
    """A generator has no traces at all."""


def sample_traces(
    prompts: Path,
    manifest: Path | None,
    data: list[Path],
    traces: Path,
    *,
    settings: TracesSettings,
    run: GenerationRun,
    threads: int,
    log_file: Path,
) -> None:
    """Writes the `Traces` table of a generator: the completions of every prompt, scored by the prompt's task.

    ``manifest`` is that of the checkpoint that the backend needs, ``data`` are local files that settings name. A prompt to which
    a data set or a provider gives fewer than the samples asked for has fewer rows. Raises TracesError where there are none at
    all.
    """
    problems, sampling, generator = read_table(prompts, Prompts), settings.sampling, settings.generator
    requests = [Request(prompt_id, prompt, sampling) for prompt_id, prompt in problems.select("prompt_id", "prompt").iter_rows()]
    completions = complete(
        requests,
        settings=settings.backend,
        run=run,
        checkpoint=checked_folder(manifest) if manifest else None,
        seed=settings.seed,
        threads=threads,
        log_file=log_file,
    )
    missing = len(requests) * sampling.samples - sum(map(len, completions))
    if missing:
        log.warning("%d of %d samples are missing", missing, len(requests) * sampling.samples)
    rows = [
        {
            "trace_id": f"{problem['prompt_id']}:{generator}:{number}",
            "prompt_id": problem["prompt_id"],
            "generator": generator,
            "sample": number,
            "prompt": problem["prompt"],
            "reasoning": completion.reasoning,
            "response": completion.response,
            **score,
        }
        for (problem, number, completion), score in scored(problems, completions, threads)
    ]
    if not rows:
        raise TracesError(f"generator {generator} gave no trace to any of {len(problems)} prompts: see {log_file}")
    columns = list(Traces.to_schema().columns)
    # Sorted, so that a reader of some prompts finds them together.
    frame = (
        pl.DataFrame(rows, schema_overrides={"answer": pl.String, "correct": pl.Boolean})
        .select(columns)
        .sort("prompt_id", "sample")
    )
    write_table(frame, Traces, traces)
