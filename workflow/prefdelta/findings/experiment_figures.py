"""Figures of experiments: a kind for each sort of question, plotted from the table, with the answer in words as caption."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.settings import ExperimentFigureSettings
from prefdelta.measure import plotting
from prefdelta.measure.plotting import GAIN_IN_TWO_LINES, GAINS
from prefdelta.measure.verdict import verdict
from prefdelta.study.lattice import SIDES
from prefdelta.tables.io import read_result_csv

CROSSED = ["method", "judge", "policy", "chosen", "rejected"]  # what a line of a crossed figure has in common


def plot_experiment(table: Path, figure: Path, *, settings: ExperimentFigureSettings) -> None:
    """Plots an experiment's gains over the base policy, as ``settings.figure`` says: ladders and bars also of greedy answers."""
    results, suites = read_result_csv(table, Results).filter(pl.col("task").is_null()), settings.suites
    gains = results.filter(versus=BASE)
    gains = gains.with_columns(series=pl.col("arm").replace_strict(settings.arms, settings.series))
    sampled = gains.filter(decoding="sampled")
    match settings.figure:
        case "crossed":
            plot = crossed(gains.filter(suite=suites[-1]))
        case "ladder" | "bars":
            plot = {"ladder": ladder, "bars": bars}[settings.figure](gains, suites)
        case _:
            plot = {"sweep": sweep, "steps": steps, "grid": grid}[settings.figure](sampled, suites)
    unit = (
        f"Accuracy on {suites[-1]}, sampled and greedy, and paired differences (points), with 95 % intervals, corrected for the "
        "number of comparisons with the same control:"
    )
    if settings.figure == "crossed":
        unit = f"Sampled gains over the base policy on {suites[-1]} (points, standard errors), by sample-level delta (levels):"
        lines = answer_crossed(sampled.filter(suite=suites[-1]))
    else:
        lines = answer_experiment(results, settings.arms, suites[-1])
    plotting.save(plot, figure, title=settings.title, question=settings.question, answers={unit: lines}, caveat=settings.caveat)
    told = "\n".join(f"  {line.replace('**', '')}" for line in lines)
    print(f"\n{settings.question} ({figure})\n{told}\n", flush=True)  # for whoever waits at the terminal


def answer_experiment(results: pl.DataFrame, arms: list[str], suite: str) -> list[str]:
    """A line for each arm: sampled accuracy on ``suite`` against the base policy and controls, and greedy against the base; that
    of the primary contrast first."""
    shown = results.filter(suite=suite)
    lines = []
    primary = shown.filter(pl.col("primary"))["arm"].to_list()
    for arm in sorted(arms, key=lambda arm: arm not in primary):
        rows = {(row["decoding"], row["versus"]): row for row in shown.filter(arm=arm).iter_rows(named=True)}
        accuracy = rows["sampled", None]
        compared = [
            ("base policy" if versus == BASE else versus)
            + f"{' (primary, not corrected)' if row['primary'] else ''}: {verdict(row)}"
            + (f" ({row['budget']})" if row["budget"] else "")
            for (decoding, versus), row in rows.items()
            if decoding == "sampled" and versus
        ]
        seeds = f"{accuracy['n_seeds']} seed{'s' if accuracy['n_seeds'] > 1 else ' only, so the interval speaks of items alone'}"
        line = f"**{arm}** {accuracy['estimate']:.1f} ({seeds}). Against " + "; ".join(compared) + "."
        if greedy := rows.get(("greedy", None)):
            line += f" Greedy {greedy['estimate']:.1f}; against base policy: {verdict(rows['greedy', BASE])}."
        lines.append(line)
    return lines


def answer_crossed(gains: pl.DataFrame) -> list[str]:
    """A line for each two generators, with the gain at each sample-level delta. What these say together is in `TwoDeltas`."""
    lines = []
    for rows in gains.sort("generator_delta", "mean_delta").partition_by(CROSSED, maintain_order=True):
        arm = rows.row(0, named=True)
        sides = f"{arm['chosen']} over {arm['rejected']}** ({arm['method']}, {arm['generator_delta']:+.0f})"
        found = rows.select("estimate", "standard_error", "mean_delta").rows()
        told = [f"{gain:+.1f} ({error:.1f}) at {delta:.2f}" for gain, error, delta in found]
        lines.append(f"**{sides}: {', '.join(told)}.")
    return lines


def ladder(gains: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain against the generator-level delta: a panel for each series, in it a line for each suite; that of greedy answers is
    dashed."""
    lines = gains.sort("generator_delta").partition_by("series", maintain_order=True)
    plot, panels = plotting.panels(len(lines), width=6.4, height=4.2, sharey=True)
    for panel, rungs in zip(panels, lines, strict=True):
        _ladder(panel, rungs, suites)
    panels[0].set_ylabel(GAINS)
    panels[0].legend(loc="best")
    return plot


def _ladder(panel: Axes, gains: pl.DataFrame, suites: list[str]) -> None:
    sides = [side for side in SIDES if gains[side].n_unique() > 1] or ["chosen"]
    for index, suite in enumerate(suites):
        for decoding, line, fill in (("sampled", "-", None), ("greedy", "--", "white")):
            rows, colour = gains.filter(suite=suite, decoding=decoding), plotting.colour(index)
            x = rows["generator_delta"] + 0.6 * (index - (len(suites) - 1) / 2)
            panel.plot(x, rows["estimate"], line, color=colour, lw=1.2, alpha=0.4)
            spread, name = plotting.errors(rows), suite if decoding == "sampled" else None
            panel.errorbar(x, rows["estimate"], yerr=spread, fmt="o", ms=5, lw=1.4, capsize=2, color=colour, mfc=fill, label=name)
    for index, row in enumerate(gains.filter(suite=suites[-1], decoding="sampled").iter_rows(named=True)):
        # Above and below in turn, so that the names of generators with nearly equal deltas do not collide.
        ends = gains.filter(arm=row["arm"])
        place, shift = (ends["ci_low"].min(), -11) if index % 2 else (ends["ci_high"].max(), 5)
        name = " over ".join(row[side] for side in sides)
        panel.annotate(
            name, (row["generator_delta"], place), xytext=(0, shift), textcoords="offset points", ha="center", fontsize=8
        )
    panel.axhline(0, color="black", lw=0.8)
    panel.margins(x=0.1, y=0.12)
    rejected = ", ".join(gains["rejected"].unique(maintain_order=True))
    label = f"generator-level delta: accuracy of the chosen generator minus that of {rejected} (points)"
    panel.set(xlabel=label, title=gains["series"][0])


def bars(gains: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain of each arm, a dot and an interval for each suite; a hollow one of greedy answers."""
    arms = gains["arm"].unique(maintain_order=True).to_list()
    plot, (panel,) = plotting.panels(1, width=7.0, height=1.2 + 0.5 * len(arms))
    for index, suite in enumerate(suites):
        for number, decoding in enumerate(("sampled", "greedy")):
            rows = gains.filter(suite=suite, decoding=decoding)
            places = [arms.index(arm) + plotting.offset(2 * index + number, 2 * len(suites)) for arm in rows["arm"]]
            name = "_" * number + suite  # of two marks of a suite, the legend has the filled one
            plotting.dots(panel, rows, places, index, name, hollow=decoding == "greedy")
    panel.axvline(0, color="black", lw=0.8)
    panel.set_yticks(range(len(arms)), arms)
    panel.invert_yaxis()
    panel.set_xlabel(GAINS)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return plot


def sweep(gains: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain against the number of pairs: a line for each series, a panel for each suite."""
    return _lines(gains, suites, "n_pairs", "pairs (equal optimiser steps)")


def steps(gains: pl.DataFrame, suites: list[str]) -> Figure:
    """Gain against the number of optimiser steps: a line for each series, a panel for each suite."""
    return _lines(gains, suites, "n_steps", "optimiser steps")


def _lines(gains: pl.DataFrame, suites: list[str], x: str, label: str) -> Figure:
    """Gain against the column ``x``, which is called ``label``: a line for each series, a panel for each suite."""
    plot, panels = plotting.panels(len(suites), width=4.4, height=3.8, sharey=True)
    names = gains["series"].unique(maintain_order=True)
    apart = min(1.04, 1.2 ** (1 / len(names)))  # lines at one size stand beside each other, but not at another one
    for panel, suite in zip(panels, suites, strict=True):
        for index, name in enumerate(names):
            rows, mark = gains.filter(series=name, suite=suite).sort(x), plotting.mark(index)
            bars, colour = plotting.errors(rows), plotting.colour(index)
            panel.errorbar(
                rows[x] * apart**index,
                rows["estimate"],
                yerr=bars,
                fmt=f"{mark}-",
                ms=5,
                lw=1.4,
                capsize=2,
                color=colour,
                label=name,
            )
        panel.axhline(0, color="black", lw=0.8)
        sizes = sorted(set(gains[x]))
        panel.set_xscale("log")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set(xlabel=label, title=suite)
    panels[0].set_ylabel(GAIN_IN_TWO_LINES)
    if len(names) > 1:
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return plot


def grid(gains: pl.DataFrame, suites: list[str]) -> Figure:
    """Heat map of the gain: chosen generator by rejected generator, ordered by ability; a panel for each suite and series."""
    chosen, rejected = plotting.by_ability(gains, "chosen"), plotting.by_ability(gains, "rejected")
    maps = [(suite, name) for name in gains["series"].unique(maintain_order=True) for suite in suites]
    plot, panels = plotting.panels(len(maps), width=1.6 + 1.05 * len(rejected), height=1.4 + 0.7 * len(chosen))
    limit = max(float(gains["estimate"].abs().max() or 1), 1e-9)  # type: ignore[arg-type]
    for panel, (suite, name) in zip(panels, maps, strict=True):
        values = np.full((len(chosen), len(rejected)), np.nan)
        for row in gains.filter(suite=suite, series=name).iter_rows(named=True):
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
        panel.set(xlabel="rejected generator", ylabel="chosen generator", title=", ".join(filter(None, (suite, name))))
    plot.colorbar(image, ax=panels, label=GAIN_IN_TWO_LINES)
    return plot


def crossed(gains: pl.DataFrame) -> Figure:
    """Gain against the mean sample-level delta of an arm's pairs: a line for two generators, a panel for each decoding.

    Arms have few seeds each, whose intervals would hide the lines: what they tell together is in `answers.two_deltas`.
    """
    decodings = sorted(gains["decoding"].unique(), reverse=True)  # sampled answers first
    plot, panels = plotting.panels(len(decodings), width=5.0, height=4.0, sharey=True)
    varying = [word for word in CROSSED[:3] if gains[word].n_unique() > 1]
    ordered = gains.sort("generator_delta", "mean_delta").partition_by(CROSSED, maintain_order=True)
    apart = 0.1 * float(np.ptp(gains["mean_delta"].to_numpy())) / max(gains["selection"].n_unique() - 1, 1)
    for panel, decoding in zip(panels, decodings, strict=True):
        for index, rows in enumerate(line.filter(decoding=decoding) for line in ordered):
            arm = rows.row(0, named=True)
            sides = f"{arm['chosen']} over {arm['rejected']} ({arm['generator_delta']:+.0f})"
            name = ", ".join([*(arm[word] for word in varying), sides])
            x = rows["mean_delta"] + apart * (index - (len(ordered) - 1) / 2)  # equal deltas would hide each other's intervals
            y, colour, marker = rows["estimate"], plotting.colour(index), plotting.mark(index)
            panel.errorbar(x, y, yerr=rows["standard_error"], fmt=f"{marker}-", ms=4, lw=1.4, capsize=2, color=colour, label=name)
        panel.axhline(0, color="black", lw=0.8)
        panel.set(xlabel="mean sample-level delta of the pairs (levels)", title=f"{decoding} answers")
    panels[0].set_ylabel("gain over the base policy\n(points of accuracy; bars: standard errors)")
    panels[-1].legend(title="generators (delta in points)", loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return plot
