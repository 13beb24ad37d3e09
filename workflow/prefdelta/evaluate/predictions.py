"""Evaluation: a checkpoint's answers to every item of every suite, sampled (avg@k) and greedy, kept item by item.

An untuned policy answers at other temperatures, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.generate.completions import Request, complete
from prefdelta.generate.scoring import scored
from prefdelta.generate.settings import GenerationRun, PredictionsSettings, TemperaturesSettings
from prefdelta.study.sampling import Sampling
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Predictions, Prompts, Tempered


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
    drawn = settings.sampling
    turns = {"sampled": (drawn, settings.samples_by_task)}
    if settings.greedy:
        turns["greedy"] = (drawn.model_copy(update={"samples": 1, "temperature": 0.0}), {})
    rows = _answered(turns, "decoding", manifest, suites, settings, run, threads, log_file)
    write_table(rows, Predictions, predictions)


def evaluate_temperatures(
    manifest: Path,
    suites: list[Path],
    task_files: list[Path],
    tempered: Path,
    *,
    settings: TemperaturesSettings,
    run: GenerationRun,
    threads: int,
    log_file: Path,
) -> None:
    """Writes the `Tempered` answers of an untuned policy: as `evaluate_model`, sampled at each of the temperatures."""
    by_task = settings.samples_by_task
    turns = {value: (settings.sampling.model_copy(update={"temperature": value}), by_task) for value in settings.temperatures}
    write_table(_answered(turns, "temperature", manifest, suites, settings, run, threads, log_file), Tempered, tempered)


def _answered(
    turns: Mapping[Any, tuple[Sampling, Mapping[str, int]]],
    name: str,
    manifest: Path,
    suites: list[Path],
    settings: PredictionsSettings,
    run: GenerationRun,
    threads: int,
    log_file: Path,
) -> pl.DataFrame:
    """A row for each answer to each item in each of ``turns``, by its key in the column ``name``.

    A turn has its sampling, and the numbers of samples of tasks that have their own.
    """
    items = pl.concat([read_table(suite, Prompts) for suite in suites])
    requests = [
        Request(prompt_id, prompt, drawn.model_copy(update={"samples": by_task.get(task, drawn.samples)}))
        for drawn, by_task in turns.values()
        for prompt_id, prompt, task in items.select("prompt_id", "prompt", "task").iter_rows()
    ]
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
        {"item_id": item["prompt_id"], "suite": item["split"], "task": item["task"], name: key, "sample": n, **score}
        for turn, key in enumerate(turns)
        for (item, n, _), score in scored(items, completions[turn * len(items) : (turn + 1) * len(items)], threads)
    ]
    return pl.DataFrame(rows, schema_overrides={"answer": pl.String, "correct": pl.Boolean})
