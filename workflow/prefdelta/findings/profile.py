"""A profile of deltas: how the pairs of generators differ in each criterion, before anything is trained on them."""

from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.findings.experiment import Results
from prefdelta.findings.generator_deltas import accuracy_deltas
from prefdelta.findings.settings import ExperimentSettings, FigureSettings
from prefdelta.measure.intervals import mean_interval
from prefdelta.pairs.contrast import correct_delta, n_identical
from prefdelta.tables.io import read_dimensions, read_result_csv, read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs


def tabulate_profile(traces: dict[str, Path], pairs: dict[str, Path], table: Path, *, settings: ExperimentSettings) -> None:
    """Writes the `Results` of a profile: the mean delta in every criterion of each arm's pair set.

    ``traces`` are by draw of a generator, ``pairs`` by arm.
    """
    by_sides = accuracy_deltas(traces, settings.draws, settings.arms)
    rows = []
    for arm in settings.arms:
        frame = read_table(pairs[arm.arm], Pairs)
        for criterion in read_dimensions(pairs[arm.arm]).criteria:
            # Samples of one prompt are not independent, so the bootstrap's unit is the prompt.
            values = frame.group_by("prompt_id").agg(pl.col(f"delta_{criterion}").mean()).sort("prompt_id")
            differences = values[f"delta_{criterion}"].to_numpy()
            words = {word: getattr(arm, word) for word in ("arm", "judge", "chosen", "rejected", "selection")}
            rows.append(
                {
                    "experiment": settings.experiment,
                    **words,
                    "dimension": criterion,
                    **vars(mean_interval(differences, settings.bootstrap.seed, settings.bootstrap.n_resamples)),
                    "n_items": len(values),
                    "n_pairs": len(frame),
                    "generator_delta": by_sides[arm.chosen, arm.rejected],
                    "mean_delta": float(frame["delta_overall"].mean()),  # type: ignore[arg-type]
                    "correct_delta": correct_delta(frame),
                    "n_identical": n_identical(frame),
                }
            )
    write_result_table(rows_to_table(rows, Results), Results, table)


def plot_profile(table: Path, pairs: dict[str, Path], figure: Path, *, settings: FigureSettings) -> None:
    """Plots the distribution of every criterion's delta, a panel for each arm."""
    from prefdelta.measure import plotting

    plot, panels = plotting.panels(len(settings.arms), width=2.1, height=3.4, sharey=True)
    rated = {arm: read_dimensions(pairs[arm]) for arm in settings.arms}
    criteria = plotting.criteria(name for each in rated.values() for name in each.names)
    for panel, arm in zip(panels, settings.arms, strict=True):
        frame = read_table(pairs[arm], Pairs)
        for place, (criterion, colour) in enumerate(criteria.items()):
            if criterion not in rated[arm].criteria:
                continue
            values = frame[f"delta_{criterion}"].to_numpy()
            parts: Any = panel.violinplot([values], positions=[place], widths=0.85, showextrema=False, orientation="horizontal")
            parts["bodies"][0].set(facecolor=colour, alpha=0.6)
            panel.plot(values.mean(), place, "o", color=colour, ms=4)
        panel.axvline(0, color="black", lw=0.8)
        if scale := rated[arm].scale:
            panel.set_xlim(scale[0] - scale[1], scale[1] - scale[0])
        panel.set(xlabel="delta (levels)", title=arm.replace(" over ", "\nover "))
        panel.title.set_fontsize(9)
    panels[0].set_yticks(range(len(criteria)), criteria)
    panels[0].invert_yaxis()
    lines = answer_profile(read_result_csv(table, Results), settings.arms)
    answers = {"Mean delta of each criterion (levels), 95 % intervals:": lines}
    plotting.save(plot, figure, title=settings.title, question=settings.question, answers=answers, caveat=settings.caveat)


def answer_profile(results: pl.DataFrame, arms: list[str]) -> list[str]:
    """A line for each arm: its mean delta in every criterion."""
    lines = []
    for arm in arms:
        means = ", ".join(
            f"{row['dimension']} {row['estimate']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"
            for row in results.filter(arm=arm).iter_rows(named=True)
        )
        lines.append(f"**{arm}**: {means}.")
    return lines
