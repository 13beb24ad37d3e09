"""Evaluation: a checkpoint's answers to every item of every suite, sampled (avg@k) and greedy, kept item by item."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.generate.completions import Request, complete
from prefdelta.generate.scoring import scored
from prefdelta.study.sampling import Sampling
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Predictions, Prompts


def evaluate_model(
    manifest: Path | str,
    suites: Sequence[Path | str],
    output: Path | str,
    log_file: str,
    *,
    backend: str,
    settings: dict[str, Any],
    sampling: dict[str, Any],
    samples_by_task: dict[str, int],
    greedy: bool,
    seed: int,
    threads: int,
) -> None:
    """Writes the `Predictions` of the checkpoint of ``manifest`` on ``suites`` (`Prompts` tables), all from one load.

    ``samples_by_task`` overrides the number of samples (avg@16 for AIME, say).
    """
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    drawn = Sampling.model_validate(sampling)
    by_task = {task: drawn.model_copy(update={"samples": n}) for task, n in samples_by_task.items()}
    asked = list(items.select("prompt_id", "prompt", "task").iter_rows())
    requests = [Request(prompt_id, prompt, by_task.get(task, drawn)) for prompt_id, prompt, task in asked]
    decodings = ["sampled"]
    if greedy:
        once = drawn.model_copy(update={"samples": 1, "temperature": 0.0})
        requests += [Request(prompt_id, prompt, once) for prompt_id, prompt, _ in asked]
        decodings.append("greedy")
    completions = complete(
        requests,
        backend=backend,
        settings=settings,
        checkpoint=checked_folder(manifest),
        seed=seed,
        threads=threads,
        log_file=log_file,
    )
    rows = [
        {"item_id": item["prompt_id"], "suite": item["split"], "task": item["task"], "decoding": decoding, "sample": n, **score}
        for turn, decoding in enumerate(decodings)
        for (item, n, _), score in scored(items, completions[turn * len(items) : (turn + 1) * len(items)], threads)
    ]
    write_table(pl.DataFrame(rows, schema_overrides={"answer": pl.String}), Predictions, output)
