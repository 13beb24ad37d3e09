"""Capability: what every model can do before any preference tuning, measured."""

from pathlib import Path

import pandera.polars as pa
import polars as pl

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.findings.settings import SuitesSettings
from prefdelta.measure.intervals import mean_interval
from prefdelta.measure.scores import clipped, item_scores
from prefdelta.measure.settings import Bootstrap
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table


class Capability(Table):
    """Measured accuracy (points) of every model before any preference tuning.

    ``n_ungraded`` answers could not be graded and are left out; ``n_items`` have an answer that could.
    """

    model: str
    family: str
    hidden_size: int
    layers: int
    parameters: int = pa.Field(gt=0)
    suite: str
    task: str = pa.Field(nullable=True)
    decoding: str
    estimate: float = pa.Field(ge=0, le=100)
    ci_low: float
    ci_high: float
    n_items: int = pa.Field(gt=0)
    n_ungraded: int = pa.Field(ge=0)


def tabulate_capability(evals: dict[str, Path], manifests: dict[str, Path], table: Path, *, settings: Bootstrap) -> None:
    """Writes the `Capability` of every model of ``evals``: accuracy by suite (and task) and decoding.

    Raises ScoresError where too many answers are ungraded.
    """
    rows = []
    for model, predictions in evals.items():
        manifest = read_manifest(manifests[model])
        shape = {"model": model, **{key: manifest[key] for key in ("family", "hidden_size", "layers", "parameters")}}
        (by_suite,) = item_scores([predictions], settings.ungraded)
        for scores in by_suite:
            interval = mean_interval(scores.values, settings.seed, settings.n_resamples, scores.sizes)
            place = {"suite": scores.suite, "task": scores.task, "decoding": scores.decoding, "n_items": len(scores.values)}
            place["n_ungraded"] = scores.n_ungraded
            rows.append(shape | place | clipped(interval, 0))
    write_result_table(rows_to_table(rows, Capability), Capability, table)


def plot_capability(table: Path, figure: Path, *, settings: SuitesSettings) -> None:
    """Plots every model's accuracy by suite and decoding."""
    from prefdelta.measure import plotting

    results = read_result_csv(table, Capability).filter(pl.col("task").is_null())
    models = results["model"].unique(maintain_order=True).to_list()
    decodings = results["decoding"].unique().sort(descending=True).to_list()
    plot, panels = plotting.panels(len(decodings), width=4.2, height=0.5 + 0.32 * len(models), sharey=True)
    for panel, decoding in zip(panels, decodings, strict=True):
        for index, suite in enumerate(settings.suites):
            rows = results.filter(suite=suite, decoding=decoding)
            places = [models.index(model) + plotting.offset(index, len(settings.suites)) for model in rows["model"]]
            plotting.dots(panel, rows, places, index, suite)
        panel.set(xlabel=f"accuracy, {decoding} (points)", xlim=(-2, 102))
    panels[0].set_yticks(range(len(models)), models)
    panels[0].invert_yaxis()
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    plotting.save(
        plot,
        figure,
        title="What each model can do before preference tuning",
        question="What can each model do before preference tuning?",
        answers={"Measured accuracy, 95 % intervals over items.": []},
    )
