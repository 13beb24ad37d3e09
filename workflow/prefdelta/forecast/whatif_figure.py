"""The figure of what arms will be, before any of them is trained."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from prefdelta.forecast.overlap import Overlap
from prefdelta.forecast.predictor import read_predictor
from prefdelta.forecast.requests import Requests, answer_requests
from prefdelta.forecast.settings import WhatIfFigureSettings
from prefdelta.forecast.whatif import MANY_PASSES, answer_whatif, read_whatif
from prefdelta.measure import plotting
from prefdelta.measure.verdict import arm_names
from prefdelta.tables.io import read_result_csv


def plot_whatif(
    table: Path, overlap: Path, requests: Path, predictor: Path | None, figure: Path, *, settings: WhatIfFigureSettings
) -> None:
    """Plots what each arm will be: deltas, predicted gain, budget; and which pairs the arms of two generators share.

    ``requests`` (`Requests`) are told in words.
    """
    arms, groups = read_whatif(table), read_result_csv(overlap, Overlap).partition_by("chosen", "rejected")
    groups = [rows for rows in groups if rows["share"].is_between(0, 1, closed="none").any()]  # else all or nothing
    matrices = [_shares(rows) for rows in groups]
    heights = [1.6 + 0.2 * len(arms), *(2.4 + 0.26 * len(labels) for labels, _ in matrices)]
    plot = pyplot.figure(figsize=(14, sum(heights)), layout="constrained")
    first, *others = plot.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _plot_arms(first, arms, settings.suite, predicted=predictor is not None)
    for part, rows, (labels, values) in zip(others, groups, matrices, strict=True):
        _plot_shares(part, labels, values, f"{rows['chosen'][0]} over {rows['rejected'][0]}")
    caveat = "Means over an arm's seeds. The budget leaves out traces and ratings, which are there already."
    if predictor:
        made = read_predictor(predictor)
        caveat += (
            f" Gains are predicted by a fit on {made.n_arms} arms of the study {made.study} ({made.suite}): models, tasks and "
            "lengths of another kind can gain more or less than their intervals say."
        )
        if made.study == settings.study:
            caveat += " Those are this study's own arms, so here the prediction is no test."
    plotting.save(
        plot,
        figure,
        title=f"{settings.study} before any training",
        question="What will each arm be, before it is trained?",
        answers={
            "": [
                *answer_whatif(arms, settings.identical_pairs, settings.truncated),
                *answer_requests(read_result_csv(requests, Requests)),
            ]
        },
        caveat=caveat,
    )


def _plot_arms(part: SubFigure, arms: pl.DataFrame, suite: str, *, predicted: bool) -> None:
    """Deltas, predicted gain and budget of each of ``arms`` (`WhatIf`)."""
    deltas, *gains, budget = part.subplots(1, 2 + predicted, sharey=True)
    places = list(range(len(arms)))
    colour, other = plotting.COLOURS[:2]
    deltas.hlines(places, arms["delta_overall_q10"], arms["delta_overall_q90"], color=colour, lw=4, alpha=0.35)
    deltas.plot(arms["delta_overall_q50"], places, "|", ms=8, color="black", label="median")
    deltas.plot(arms["delta_overall"], places, "o", ms=4, color=colour, label="mean")
    deltas.axvline(0, color="black", lw=0.8)
    deltas.set(xlabel="overall delta (levels; bar: middle 80 % of pairs)", title="deltas", ylim=(len(arms) - 0.5, -0.5))
    deltas.set_yticks(places, arm_names(arms), fontsize=8)
    deltas.legend(fontsize=8)
    for panel in gains:
        known = arms.with_row_index("place").drop_nulls("predicted_gain")
        panel.plot(known["predicted_gain"], known["place"], "o", ms=4, color=colour)
        known = known.drop_nulls("predicted_low")
        panel.hlines(known["place"], known["predicted_low"], known["predicted_high"], color=colour, lw=1.4)
        panel.axvline(0, color="black", lw=0.8)
        panel.set(xlabel=f"points on {suite}, 95 % intervals", title="predicted gain")
    budget.barh(places, arms["n_training_tokens"], color=plotting.GREY)
    for place, row in enumerate(arms.iter_rows(named=True)):
        text, shade = f" {row['n_pairs']:.0f} pairs x {row['n_passes']:.2g}", other if row["n_passes"] > MANY_PASSES else "black"
        budget.text(row["n_training_tokens"], place, text, va="center", fontsize=7, color=shade)
    budget.set(xlabel="completion tokens of a training (pairs x passes)", title="budget")
    budget.margins(x=0.25)
    budget.locator_params(axis="x", nbins=4)


def _plot_shares(part: SubFigure, labels: list[str], values: NDArray[np.float64], generators: str) -> None:
    """The shares of `_shares` as a matrix."""
    panel = part.subplots()
    panel.imshow(values, cmap="Blues", vmin=0, vmax=1)
    panel.set_anchor("W")
    panel.grid(False)
    for (down, along), share in np.ndenumerate(values):
        text = f"{100 * share:.0f}"
        panel.text(along, down, text, ha="center", va="center", fontsize=6, color="white" if share > 0.6 else "black")
    panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    panel.set_yticks(range(len(labels)), labels, fontsize=7)
    panel.set_title(f"{generators}: shared pairs, % of the smaller set", loc="left")


def _shares(rows: pl.DataFrame) -> tuple[list[str], NDArray[np.float64]]:
    """The pair sets of ``rows`` (`Overlap` of the same two generators) and the matrix of their shares."""
    sides = [rows.select("judge", "selection"), rows.select(judge="other_judge", selection="other_selection")]
    sets = pl.concat(sides).unique(maintain_order=True).rows()
    values = np.eye(len(sets))
    for row in rows.iter_rows(named=True):
        one, other = (sets.index((row[f"{which}judge"], row[f"{which}selection"])) for which in ("", "other_"))
        values[one, other] = values[other, one] = row["share"]
    one_judge = len({judge for judge, _ in sets}) == 1
    return [selection if one_judge else f"{selection}, {judge}" for judge, selection in sets], values
