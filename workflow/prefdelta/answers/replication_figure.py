"""The figure of what holds again."""

from pathlib import Path

import polars as pl

from prefdelta.answers.replication import CAVEAT, NO_CLAIM, REPLICATION, Replication, replication_lines
from prefdelta.answers.settings import ReplicationSettings
from prefdelta.measure import plotting
from prefdelta.tables.io import read_result_csv


def plot_replication(table: Path, figure: Path, *, settings: ReplicationSettings) -> None:
    """Plots each claim of the other study (grey) beside what came out with each policy of this one; slopes in another panel."""
    replication = read_result_csv(table, Replication)
    claims = replication.filter(pl.col("verdict") != NO_CLAIM)
    claims = claims.with_columns(name=pl.format("{}: {}, {}", "experiment", "claim", "decoding"))
    policies = claims["policy"].drop_nulls().unique(maintain_order=True).to_list()
    panels = {"comparison": f"difference (points of accuracy on {settings.suite})", "slope": "slope (points of gain)"}
    most = max((rows["name"].n_unique() for rows in claims.partition_by("kind")), default=1)
    plot, axes = plotting.panels(2, width=9.0, height=1.6 + 0.34 * most)
    for panel, (kind, unit) in zip(axes, panels.items(), strict=True):
        rows = claims.filter(kind=kind)
        names = rows["name"].unique(maintain_order=True).to_list()
        original = rows.unique("name", maintain_order=True)
        before = original.select(estimate="original_estimate", ci_low="original_ci_low", ci_high="original_ci_high")
        panel.errorbar(
            before["estimate"],
            range(len(names)),
            xerr=plotting.errors(before),
            fmt="s",
            ms=5,
            lw=5,
            alpha=0.4,
            color=plotting.GREY,
            label=settings.original,
        )
        for index, policy in enumerate(policies):
            part = rows.filter(policy=policy)
            places = [names.index(name) + plotting.offset(index, len(policies)) for name in part["name"]]
            plotting.dots(panel, part, places, index, policy)
        panel.axvline(0, color="black", lw=0.8)
        panel.set_yticks(range(len(names)), names, fontsize=7)
        panel.set(xlabel=unit, ylim=(max(len(names), 1) - 0.5, -0.5))
    axes[0].legend(fontsize=8)
    plotting.save(
        plot,
        figure,
        title=f"Claims of {settings.original}, asked again in {settings.study}",
        question=REPLICATION,
        answers={"": replication_lines(replication, settings.original)},
        caveat=CAVEAT,
    )
