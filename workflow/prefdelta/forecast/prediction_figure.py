"""The figure of how well gains are predicted."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes

from prefdelta.forecast.prediction import PredictedArms, Prediction, prediction_lines
from prefdelta.measure import plotting
from prefdelta.measure.settings import SuiteSettings
from prefdelta.tables.io import read_result_csv


def plot_prediction(table: Path, arms: Path, figure: Path, *, settings: SuiteSettings) -> None:
    """Plots predicted against measured gains of arms that the fit did not have, with the worst arms named, R^2, and the regret.

    ``table`` has `Prediction`, ``arms`` `PredictedArms`.
    """
    splits, rows = read_result_csv(table, Prediction), read_result_csv(arms, PredictedArms)
    columns = {
        "predicted_frozen": "frozen: fitted on another study",
        "predicted": "held-out pair of generators",
        "predicted_new_generators": "both generators held out",
    }
    columns = {column: title for column, title in columns.items() if rows[column].count()}
    plot, axes = plotting.panels(len(columns) + 2, width=4.6, height=4.2)
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
        panel.legend(fontsize=8)
    known = splits.filter(pl.col("r2").is_not_null())
    names = [f"{row['split']} (n={row['n_arms']})" for row in known.iter_rows(named=True)]
    fits, choices = axes[-2:]
    fits.barh(names, known["r2"].clip(-1), color=plotting.GREY)
    fits.axvline(0, color="black", lw=0.8)
    fits.invert_yaxis()
    fits.set(xlabel="R² (below -1: plotted at -1)", title="how well gains are predicted")
    _plot_regrets(choices, splits.drop_nulls("regret"))
    plotting.save(
        plot,
        figure,
        title=f"Gain on {settings.suite}, predicted before training",
        question="Can the gain be predicted before training?",
        answers={"": prediction_lines(splits), "Farthest from their predictions:": worst},
        caveat=f"Fitted and tested on the arms of {settings.study}, which share policies, prompts and evaluation items; but the "
        "split frozen is by a predictor of another study, which no training of this one has reached. Models of another kind or "
        "size need a fit of their own. Regret is among the arms of one policy and method; the best of them is found on other "
        "items than it is compared on, so by luck a regret can be below 0.",
    )


def _plot_regrets(panel: Axes, rows: pl.DataFrame) -> None:
    """The regret of ``rows`` (`Prediction`), beside what choosing at random, or by the generator-level delta, costs."""
    places = list(range(len(rows)))
    shown = rows.select(estimate="regret", ci_low="regret_low", ci_high="regret_high")
    plotting.dots(panel, shown, places, 0, "first by the prediction")
    panel.plot(rows["regret_by_generator_delta"], places, "^", color=plotting.colour(1), label="largest generator-level delta")
    panel.plot(rows["regret_at_random"], places, "x", color=plotting.GREY, label="at random")
    panel.axvline(0, color="black", lw=0.8)
    panel.set_yticks(places, rows["split"].to_list())
    panel.invert_yaxis()
    panel.set(xlabel="regret (points below the best arm)", title="what the choice of an arm costs")
    panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
