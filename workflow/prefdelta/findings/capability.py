"""Capability: what every model can do before any preference tuning, measured."""

from pathlib import Path

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.findings.experiment import clipped, item_scores
from prefdelta.findings.intervals import mean_interval
from prefdelta.study import paths
from prefdelta.tables.findings import Capability
from prefdelta.tables.io import rows_to_table, write_result_table


def tabulate_capability(output: Path | str, *, study: str, models: list[str], n_resamples: int, seed: int) -> None:
    """Writes the measured `Capability` of ``models``: accuracy by suite (and task) and decoding, in points."""
    rows = []
    for model in models:
        manifest = read_manifest(paths.BASE.format(study=study, model=model))
        shape = {"model": model, **{key: manifest[key] for key in ("family", "hidden_size", "layers", "parameters")}}
        for scores in item_scores(paths.EVAL_BASE.format(study=study, model=model)):
            interval = mean_interval(scores.values, seed, n_resamples, scores.sizes)
            place = {"suite": scores.suite, "task": scores.task, "decoding": scores.decoding, "n_items": len(scores.values)}
            rows.append(shape | place | clipped(interval, 0))
    write_result_table(rows_to_table(rows, Capability), Capability, output)
