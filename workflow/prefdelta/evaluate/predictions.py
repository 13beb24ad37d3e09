"""Evaluation: a checkpoint's answers to every item of every suite, sampled (avg@k) and greedy, kept item by item."""

from pathlib import Path

import polars as pl

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.generate.completions import Request, complete
from prefdelta.generate.scoring import scored
from prefdelta.generate.settings import GenerationRun, PredictionsSettings
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Predictions, Prompts


def evaluate_model(
    manifest: Path,
    suites: list[Path],
    task_files: list[Path],
    predictions: Path,
    *,
    settings: PredictionsSettings,
    run: GenerationRun,
    threads: int,
    log_file: Path,
) -> None:
    """Writes the `Predictions` of the checkpoint of ``manifest`` on ``suites`` (`Prompts` tables), all from one load.

    ``task_files``: local files that say how answers to some items are graded; the items name them.
    """
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    drawn = settings.sampling
    by_task = {task: drawn.model_copy(update={"samples": n}) for task, n in settings.samples_by_task.items()}
    asked = list(items.select("prompt_id", "prompt", "task").iter_rows())
    requests = [Request(prompt_id, prompt, by_task.get(task, drawn)) for prompt_id, prompt, task in asked]
    decodings = ["sampled"]
    if settings.greedy:
        once = drawn.model_copy(update={"samples": 1, "temperature": 0.0})
        requests += [Request(prompt_id, prompt, once) for prompt_id, prompt, _ in asked]
        decodings.append("greedy")
    completions = complete(
        requests,
        settings=settings.backend,
        run=run,
        checkpoint=checked_folder(manifest),
        seed=settings.seed,
        threads=threads,
        log_file=log_file,
    )
    rows = [
        {"item_id": item["prompt_id"], "suite": item["split"], "task": item["task"], "decoding": decoding, "sample": n, **score}
        for turn, decoding in enumerate(decodings)
        for (item, n, _), score in scored(items, completions[turn * len(items) : (turn + 1) * len(items)], threads)
    ]
    write_table(pl.DataFrame(rows, schema_overrides={"answer": pl.String, "correct": pl.Boolean}), Predictions, predictions)
