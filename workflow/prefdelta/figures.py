"""Figures: one kind for each sort of question, drawn from a result table, with the answer in words beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefdelta import paths
from prefdelta.answers import answer_experiment, answer_profile
from prefdelta.atomic import replacing, write_text
from prefdelta.results import BASE
from prefdelta.rubric import CRITERIA
from prefdelta.selection import draw_for_seed, parse
from prefdelta.tables import Capability, Pairs, Results, read_result_csv, read_table

matplotlib.use("Agg")
matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "savefig.bbox": "tight",
        "svg.hashsalt": "prefdelta",
    }
)
# Okabe and Ito's palette, which people with colour blindness can tell apart. A colour means the same in every figure.
SUITE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
CRITERION_COLOURS = dict(zip(CRITERIA, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#333333"), strict=True))
KIND_COLOURS = {"top": "#0072B2", "bottom": "#D55E00", "random": "#777777", "full": "#333333", "min": "#009E73"}
GAIN = "gain over the base policy (points of sampled accuracy)"


def draw_experiment(
    table: Path | str, output: Path | str, *, study: str, content: dict[str, Any], figure: dict[str, str], suites: list[str]
) -> None:
    """Draws an experiment's figure (.png, .svg, .pdf) and writes its caption (.rst): question, answer, caveat.

    ``figure`` has title, question, caveat and figure (the kind); the last of ``suites`` is the one that the answer is about.
    """
    results = read_result_csv(table, Results).filter(pl.col("task").is_null())
    if figure["figure"] == "profile":
        drawn = _profile(content, study)
        answer, unit = answer_profile(results, content), "Mean delta of each criterion (levels), 95 % intervals"
    else:
        kinds: dict[str, Callable[[pl.DataFrame, list[str]], Figure]] = {
            "ladder": _ladder,
            "bars": _bars,
            "sweep": _sweep,
            "grid": _grid,
        }
        drawn = kinds[figure["figure"]](results.filter(decoding="sampled"), suites)
        answer = answer_experiment(results, content, suites[-1])
        unit = f"Sampled accuracy on {suites[-1]} and paired differences (points), 95 % intervals"
    drawn.suptitle(figure["title"])
    save(drawn, output)
    lines = [f"**{figure['question']}**", "", f"{unit}:", "", *(f"- {line}" for line in answer), ""]
    write_text("\n".join([*lines, f"*Caveat.* {figure['caveat']}", ""]), Path(output).with_suffix(".rst"))


def draw_capability(table: Path | str, output: Path | str, *, suites: list[str]) -> None:
    """Draws every model's measured accuracy by suite and decoding."""
    results = read_result_csv(table, Capability).filter(pl.col("task").is_null())
    models = results["model"].unique(maintain_order=True).to_list()
    decodings = results["decoding"].unique().sort(descending=True).to_list()
    figure, axes = _panels(len(decodings), width=4.2, height=0.5 + 0.32 * len(models), sharey=True)
    for panel, decoding in zip(axes, decodings, strict=True):
        for index, suite in enumerate(suites):
            rows = results.filter(suite=suite, decoding=decoding)
            _dots(panel, rows, [models.index(m) + _offset(index, len(suites)) for m in rows["model"]], index, suite)
        panel.set(xlabel=f"accuracy, {decoding} (points)", xlim=(-2, 102))
    axes[0].set_yticks(range(len(models)), models)
    axes[0].invert_yaxis()
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle("What each model can do before preference tuning")
    save(figure, output)
    caption = "**What can each model do before preference tuning?** Measured accuracy, 95 % intervals over items.\n"
    write_text(caption, Path(output).with_suffix(".rst"))


def save(figure: Figure, output: Path | str) -> None:
    """Saves as .png, .svg and .pdf beside each other, without dates, so equal figures are equal files."""
    for suffix, metadata in ((".svg", {"Date": None}), (".pdf", {"CreationDate": None}), (".png", None)):
        with replacing(Path(output).with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=160, metadata=metadata)


def _panels(n: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, n, figsize=(width * n, height), squeeze=False, layout="constrained", **options)
    return figure, list(axes[0])


def _errors(rows: pl.DataFrame) -> list[list[float]]:
    low, high = rows["estimate"] - rows["ci_low"], rows["ci_high"] - rows["estimate"]
    return [low.to_list(), high.to_list()]


def _offset(index: int, n: int) -> float:
    return 0.18 * (index - (n - 1) / 2)


def _dots(panel: Axes, rows: pl.DataFrame, places: list[float], index: int, name: str) -> None:
    colour = SUITE_COLOURS[index % len(SUITE_COLOURS)]
    panel.errorbar(rows["estimate"], places, xerr=_errors(rows), fmt="o", ms=4, lw=1.4, color=colour, label=name)


def _ladder(results: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain against the generator-level delta: one line for each suite and rejected generator."""
    figure, (panel,) = _panels(1, width=6.4, height=4.2)
    gains = results.filter(versus=BASE).sort("generator_delta")
    for index, suite in enumerate(suites):
        rows = gains.filter(suite=suite)
        colour = SUITE_COLOURS[index % len(SUITE_COLOURS)]
        shift = 0.6 * (index - (len(suites) - 1) / 2)
        x = rows["generator_delta"] + shift
        panel.plot(x, rows["estimate"], color=colour, lw=1.2, alpha=0.4)
        panel.errorbar(x, rows["estimate"], yerr=_errors(rows), fmt="o", ms=5, lw=1.4, capsize=2, color=colour, label=suite)
    for index, row in enumerate(gains.filter(suite=suites[-1]).iter_rows(named=True)):
        # Above and below in turn, so that the names of generators with nearly equal deltas do not collide.
        ends = gains.filter(arm=row["arm"])
        place, shift = (ends["ci_low"].min(), -11) if index % 2 else (ends["ci_high"].max(), 5)
        panel.annotate(
            row["chosen"], (row["generator_delta"], place), xytext=(0, shift), textcoords="offset points", ha="center", fontsize=8
        )
    panel.axhline(0, color="black", lw=0.8)
    panel.margins(x=0.1, y=0.12)
    rejected = ", ".join(gains["rejected"].unique(maintain_order=True))
    panel.set(xlabel=f"generator-level delta: accuracy of the chosen generator minus that of {rejected} (points)", ylabel=GAIN)
    panel.legend(loc="best")
    return figure


def _bars(results: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain of each arm, a dot and an interval for each suite."""
    gains = results.filter(versus=BASE)
    arms = gains["arm"].unique(maintain_order=True).to_list()
    figure, (panel,) = _panels(1, width=7.0, height=1.2 + 0.36 * len(arms))
    for index, suite in enumerate(suites):
        rows = gains.filter(suite=suite)
        _dots(panel, rows, [arms.index(arm) + _offset(index, len(suites)) for arm in rows["arm"]], index, suite)
    panel.axvline(0, color="black", lw=0.8)
    panel.set_yticks(range(len(arms)), arms)
    panel.invert_yaxis()
    panel.set_xlabel(GAIN)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _sweep(results: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain against the number of pairs: a line for each way to select, a panel for each suite."""
    figure, axes = _panels(len(suites), width=4.4, height=3.8, sharey=True)
    gains = results.filter(versus=BASE)
    selections = [parse(draw_for_seed(name, 0)) for name in gains["selection"]]
    series = [f"{each.kind} by {each.criterion}" if each.criterion else each.kind for each in selections]
    gains = gains.with_columns(kind=pl.Series([each.kind for each in selections]), series=pl.Series(series))
    for panel, suite in zip(axes, suites, strict=True):
        for index, name in enumerate(gains["series"].unique(maintain_order=True)):
            rows = gains.filter(series=name, suite=suite).sort("n_pairs")
            style = "o-" if len(rows) > 1 else "s"
            colour = KIND_COLOURS[rows["kind"][0]]
            panel.errorbar(
                rows["n_pairs"] * 1.04**index,
                rows["estimate"],
                yerr=_errors(rows),
                fmt=style,
                ms=5,
                lw=1.4,
                capsize=2,
                color=colour,
                label=name,
            )
        panel.axhline(0, color="black", lw=0.8)
        sizes = sorted(set(gains["n_pairs"]))
        panel.set_xscale("log")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set(xlabel="pairs (equal optimiser steps)", title=suite)
    axes[0].set_ylabel(GAIN.replace(" (", "\n("))
    axes[-1].legend(loc="best")
    return figure


def _grid(results: pl.DataFrame, suites: list[str]) -> Figure:
    """Heat map of the gain: chosen generator by rejected generator, ordered by ability; a panel for each suite."""
    gains = results.filter(versus=BASE)
    chosen, rejected = _by_ability(gains, "chosen"), _by_ability(gains, "rejected")
    figure, axes = _panels(len(suites), width=1.6 + 1.05 * len(rejected), height=1.4 + 0.7 * len(chosen))
    limit = max(float(gains["estimate"].abs().max() or 1), 1e-9)  # type: ignore[arg-type]
    for panel, suite in zip(axes, suites, strict=True):
        values = np.full((len(chosen), len(rejected)), np.nan)
        for row in gains.filter(suite=suite).iter_rows(named=True):
            place = chosen.index(row["chosen"]), rejected.index(row["rejected"])
            values[place] = row["estimate"]
            half = (row["ci_high"] - row["ci_low"]) / 2
            dark = abs(row["estimate"]) > 0.6 * limit
            text = f"{row['estimate']:+.1f}\n±{half:.1f}"
            panel.text(place[1], place[0], text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        image = panel.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        panel.grid(False)
        panel.set_xticks(range(len(rejected)), rejected, rotation=30, ha="right")
        panel.set_yticks(range(len(chosen)), chosen)
        panel.set(xlabel="rejected generator", ylabel="chosen generator", title=suite)
    figure.colorbar(image, ax=axes, label=GAIN.replace(" (", "\n("))
    return figure


def _by_ability(gains: pl.DataFrame, side: str) -> list[str]:
    # The chosen side's ability raises the generator-level delta, the rejected side's lowers it.
    means = gains.group_by(side).agg(pl.col("generator_delta").mean()).sort("generator_delta", side, descending=side != "chosen")
    return means[side].to_list()


def _profile(content: dict[str, Any], study: str) -> Figure:
    """Distribution of every criterion's delta, a panel for each generator pair."""
    arms = content["arms"]
    figure, axes = _panels(len(arms), width=2.1, height=3.4, sharey=True)
    for panel, arm in zip(axes, arms, strict=True):
        pairs = read_table(paths.PAIRS.format(study=study, **arm), Pairs)
        for place, criterion in enumerate(CRITERIA):
            values = pairs[f"delta_{criterion}"].to_numpy()
            parts: Any = panel.violinplot([values], positions=[place], vert=False, widths=0.85, showextrema=False)
            parts["bodies"][0].set(facecolor=CRITERION_COLOURS[criterion], alpha=0.6)
            panel.plot(values.mean(), place, "o", color=CRITERION_COLOURS[criterion], ms=4)
        panel.axvline(0, color="black", lw=0.8)
        panel.set(xlabel="delta (levels)", xlim=(-4, 4), title=arm["arm"].replace(" over ", "\nover "))
        panel.title.set_fontsize(9)
    axes[0].set_yticks(range(len(CRITERIA)), CRITERIA)
    axes[0].invert_yaxis()
    return figure
