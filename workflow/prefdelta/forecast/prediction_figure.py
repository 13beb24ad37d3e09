"""The figure of how well gains are predicted."""

from pathlib import Path

import polars as pl

from prefdelta.forecast.prediction import PredictedArms, Prediction
from prefdelta.measure import plotting
from prefdelta.measure.settings import SuiteSettings
from prefdelta.tables.io import read_result_csv


def plot_prediction(table: Path, arms: Path, figure: Path, *, settings: SuiteSettings) -> None:
    """Plots predicted against measured gains of generators that the fit did not have, with the worst arms named, and R^2.

    ``table`` has `Prediction`, ``arms`` `PredictedArms`.
    """
    splits, rows = read_result_csv(table, Prediction), read_result_csv(arms, PredictedArms)
    plot, axes = plotting.panels(3, width=4.6, height=4.2)
    columns = {"predicted": "held-out pair of generators", "predicted_new_generators": "both generators held out"}
    worst: list[str] = []
    for panel, (column, title) in zip(axes, columns.items(), strict=False):
        shown = rows.filter(pl.col(column).is_not_null())
        for index, method in enumerate(shown["method"].unique(maintain_order=True)):
            part = shown.filter(method=method)
            marks = {"yerr": plotting.errors(part), "color": plotting.colour(index), "label": method}
            panel.errorbar(part[column], part["estimate"], fmt="o", ms=4, lw=0.8, **marks)
        far = shown.sort((pl.col("estimate") - pl.col(column)).abs(), descending=True).head(5)
        for number, row in enumerate(far.iter_rows(named=True), start=1):
            panel.annotate(str(number), (row[column], row["estimate"]), xytext=(4, 3), textcoords="offset points", fontsize=8)
            name = f"{row['method']}, {row['judge']}, {row['chosen']} over {row['rejected']}, {row['selection']}"
            worst.append(f"{title}, {number}: {name}: measured {row['estimate']:+.1f}, predicted {row[column]:+.1f}")
        panel.axline((0, 0), slope=1, color="black", lw=0.8)
        panel.set(xlabel="predicted gain (points)", ylabel=plotting.GAIN_IN_TWO_LINES, title=title)
        if len(shown):
            panel.legend(fontsize=8)
    known = splits.filter(pl.col("r2").is_not_null())
    names = [f"{row['split']} (n={row['n_arms']})" for row in known.iter_rows(named=True)]
    axes[2].barh(names, known["r2"].clip(-1), color=plotting.GREY)
    axes[2].axvline(0, color="black", lw=0.8)
    axes[2].invert_yaxis()
    axes[2].set(xlabel="R² (below -1: plotted at -1)", title="how well gains are predicted")
    found = [
        f"{row['split']}: R² {'unknown' if row['r2'] is None else format(row['r2'], '.2f')}, {row['n_arms']} arms"
        for row in splits.iter_rows(named=True)
    ]
    plotting.save(
        plot,
        figure,
        title=f"Gain on {settings.suite}, predicted before training",
        question="Can the gain be predicted before training?",
        answers={"": found, "Farthest from their predictions:": worst},
        caveat=f"Fitted and tested on the arms of {settings.study}, which share policies, prompts and evaluation items. Models "
        "of another kind or size need a fit of their own.",
    )
