"""Capability: what every model can do before any preference tuning, measured."""

from pathlib import Path
from typing import Any

from prefdelta import paths
from prefdelta.manifest import read_manifest
from prefdelta.results import clipped, item_scores
from prefdelta.statistics import mean_interval
from prefdelta.tables import Capability, rows_to_table, write_result_table


def tabulate_capability(output: Path | str, *, study: str, models: list[dict[str, Any]], n_resamples: int, seed: int) -> None:
    """Writes the measured `Capability` of every model of the study: accuracy by suite and decoding, in points."""
    rows = []
    for shape in models:
        scores = item_scores(paths.EVAL_BASE.format(study=study, model=shape["model"]))
        parameters = read_manifest(paths.BASE.format(study=study, model=shape["model"]))["parameters"]
        for (suite, decoding), items in sorted(scores.items()):
            interval = mean_interval(items["score"].to_numpy(), seed, n_resamples)
            row = {**shape, "parameters": parameters, "suite": suite, "decoding": decoding}
            rows.append(row | clipped(interval, 0) | {"n_items": len(items)})
    write_result_table(rows_to_table(rows, Capability), Capability, output)
