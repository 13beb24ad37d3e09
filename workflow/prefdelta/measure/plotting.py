"""How figures look, and what they share. Only figures import this module: what tabulates does not load matplotlib."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefdelta.run.atomic import replacing, write_text
from prefdelta.study.dimensions import OVERALL

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
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#333333")
MARKS = "os^DvpX"  # one more than colours, so that the two together tell 42 lines apart
GREY = "#777777"
GAINS = "gain over the base policy (points; hollow: greedy answers)"
GAIN_IN_TWO_LINES = "gain over the base policy\n(points of sampled accuracy)"


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def mark(index: int) -> str:
    """A mark, by which lines can be told apart without their `colour`, and those of one colour."""
    return MARKS[index % len(MARKS)]


def criteria(names: Iterable[str]) -> dict[str, str]:
    """The criteria among ``names``, in their order and overall last, each with its colour."""
    dimensions = [name for name in dict.fromkeys(names) if name != OVERALL]
    return {name: COLOURS[index % (len(COLOURS) - 1)] for index, name in enumerate(dimensions)} | {OVERALL: COLOURS[-1]}


def panels(n: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A row of ``n`` panels, each ``width`` by ``height`` inches."""
    plot, axes = pyplot.subplots(1, n, figsize=(width * n, height), squeeze=False, layout="constrained", **options)
    return plot, list(axes[0])


def errors(rows: pl.DataFrame) -> list[list[float]]:
    """Lengths of the lower and upper error bars of ``estimate``."""
    low, high = rows["estimate"] - rows["ci_low"], rows["ci_high"] - rows["estimate"]
    return [low.to_list(), high.to_list()]


def offset(index: int, n: int) -> float:
    """How far the ``index``-th of ``n`` marks on one line lies from it."""
    return 0.18 * (index - (n - 1) / 2)


def dots(panel: Axes, rows: pl.DataFrame, places: Sequence[float], index: int, name: str, *, hollow: bool = False) -> None:
    """Estimates with their intervals, at ``places`` on the vertical axis."""
    fill = "white" if hollow else None
    panel.errorbar(rows["estimate"], places, xerr=errors(rows), fmt="o", ms=4, lw=1.4, color=colour(index), mfc=fill, label=name)


def by_ability(gains: pl.DataFrame, side: str) -> list[str]:
    """Generators of a ``side``, from the weakest: the chosen side's ability raises the delta, the rejected side's lowers it."""
    means = gains.group_by(side).agg(pl.col("generator_delta").mean()).sort("generator_delta", side, descending=side != "chosen")
    return means[side].to_list()


def save(
    plot: Figure, figure: Path, *, title: str, question: str, answers: Mapping[str, Sequence[str]], caveat: str | None = None
) -> None:
    """Saves ``plot`` as ``figure`` (.png, .svg, .pdf) under its ``title``, and its caption (.rst): question, answers, caveat.

    ``answers``: an introduction, which may be empty -> lines. Files have no dates, so equal figures are equal files.
    """
    plot.suptitle(title)
    for suffix, metadata in ((".svg", {"Date": None}), (".pdf", {"CreationDate": None}), (".png", None)):
        with replacing(figure.with_suffix(suffix)) as temporary:
            plot.savefig(temporary, dpi=160, metadata=metadata)
    parts = [f"**{question}**"]
    for introduction, lines in answers.items():
        parts += [introduction, "\n".join(f"- {line}" for line in lines)]
    parts += [f"*Caveat.* {caveat}"] if caveat else []
    write_text("\n\n".join(filter(None, parts)) + "\n", figure.with_suffix(".rst"))
