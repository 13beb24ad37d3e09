"""The figure of the audit of judges."""

from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot

from prefdelta.audit.judge_audit import JudgeAudit, judge_findings
from prefdelta.audit.settings import ReferenceJudgeSettings
from prefdelta.measure import plotting
from prefdelta.study.dimensions import OVERALL
from prefdelta.tables.io import read_result_csv

CAVEAT = (
    "Reliability says how far a judge repeats itself, not whether it is right, and is higher where traces differ more: the table "
    "has it for each generator. Errors that all repeats share show against the reference judge only; the reference's own errors "
    "do not show at all. Ratings end at the ends of their scale, so a noisy judge rates good traces lower and bad ones higher "
    "without any preference. Equal quality is the same whole level by the reference, within which traces can still differ a "
    "little."
)

SHARE_OF = "share_of_"


def plot_judge_audit(table: Path, figure: Path, *, settings: ReferenceJudgeSettings) -> None:
    """Plots how far each judge repeats itself, agrees with the reference judge and is biased, and how it uses its levels."""
    reference_judge = settings.reference_judge
    audit = read_result_csv(table, JudgeAudit)
    shown = audit.filter(pl.col("generator").is_null() & pl.col("estimate").is_not_null())
    judges = audit["judge"].unique(maintain_order=True).to_list()
    criteria = plotting.criteria(audit["dimension"])
    plot, grid = pyplot.subplots(2, 3, figsize=(14, 6.5 + 0.45 * len(judges)), layout="constrained")
    (curves, *agreement), (*biases, levels) = grid
    repeated = shown.filter(statistic="spearman_brown")["judge"].unique(maintain_order=True)
    for style, judge in zip(cycle(("-", "--", ":", "-.")), repeated, strict=False):
        used = shown.filter(judge=judge, statistic="icc").filter(pl.col("n_ratings") == pl.col("n_ratings").max())
        for criterion, colour in criteria.items():
            line = shown.filter(judge=judge, statistic="spearman_brown", dimension=criterion)
            curves.plot(line["n_ratings"], line["estimate"], style, color=colour, lw=1.4, label=f"{criterion}, {judge}")
            curves.fill_between(line["n_ratings"], line["ci_low"], line["ci_high"], color=colour, alpha=0.15, lw=0)
            mark = used.filter(dimension=criterion)
            curves.plot(mark["n_ratings"], mark["estimate"], "o", ms=5, color=colour)
    curves.set(xlabel="ratings of a trace (dot: as many as are used)", ylabel="reliability", ylim=(0, 1))
    curves.set_title("does it repeat itself?")
    if len(repeated):
        curves.legend(fontsize=7, loc="lower right")
    others = [judge for judge in judges if judge != reference_judge]
    compared = {
        "spearman": (agreement[0], f"rank correlation with {reference_judge}"),
        "kappa": (agreement[1], f"weighted kappa with {reference_judge}"),
        "bias": (biases[0], f"rating minus {reference_judge} (levels)"),
        "length_bias": (biases[1], "the same at equal quality, for an SD of tokens\n(square: own family minus others)"),
    }
    markers = {"family_bias": (biases[1], "s")} | {statistic: (panel, "o") for statistic, (panel, _) in compared.items()}
    for statistic, (panel, marker) in markers.items():
        for index, judge in enumerate(others):
            rows = shown.filter(judge=judge, statistic=statistic)
            places = [list(criteria).index(name) + plotting.offset(index, len(others)) for name in rows["dimension"]]
            marks = {"xerr": plotting.errors(rows), "color": plotting.colour(index), "label": judge}
            panel.errorbar(rows["estimate"], places, fmt=marker, ms=4, lw=1.4, **marks)
    for panel, xlabel in compared.values():
        panel.set_yticks(range(len(criteria)), criteria if panel in (agreement[0], biases[0]) else [])
        panel.set(xlabel=xlabel if reference_judge else "unknown without a reference judge", ylim=(len(criteria) - 0.5, -0.5))
        panel.locator_params(axis="x", nbins=5)
        if panel in biases:
            panel.axvline(0, color="black", lw=0.8)
    agreement[0].set_title("does it agree?")
    biases[0].set_title("is it too kind or too strict?")
    biases[1].set_title("does it prefer length?")
    agreement[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    shares_of = shown.filter(pl.col("statistic").str.starts_with(SHARE_OF), pl.col("dimension") != OVERALL)
    bars = list(shares_of.select("judge", "dimension").unique(maintain_order=True).iter_rows())
    left = np.zeros(len(bars))
    given = sorted({int(name.removeprefix(SHARE_OF)) for name in shares_of["statistic"]})
    for level, shade in zip(given, pyplot.colormaps["viridis"](np.linspace(0.05, 0.95, len(given))), strict=True):
        rows = shown.filter(statistic=f"{SHARE_OF}{level}")
        shares = {(row["judge"], row["dimension"]): row["estimate"] for row in rows.iter_rows(named=True)}
        widths = np.array([shares.get(bar, 0.0) for bar in bars])
        levels.barh(range(len(bars)), widths, left=left, color=shade, height=0.85, label=str(level))
        left += widths
    levels.set_yticks(range(len(bars)), [f"{judge}, {dimension}" for judge, dimension in bars], fontsize=7)
    levels.set(xlabel="share of ratings", xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5), title="which levels does it give?")
    if bars:
        levels.legend(title="level", loc="upper left", bbox_to_anchor=(1, 1))
    plotting.save(
        plot,
        figure,
        title="Audit of the judges",
        question="Can the judge be trusted?",
        answers={"95 % intervals over prompts:": _answer(audit, reference_judge)},
        caveat=CAVEAT,
    )


def _answer(audit: pl.DataFrame, reference_judge: str | None) -> list[str]:
    """A line for each judge: what was found of it."""
    found: dict[str, list[str]] = {}
    for judge, words, _ in judge_findings(audit, reference_judge):
        found.setdefault(judge, []).append(words)
    return [f"**{judge}**: {'; '.join(words)}." for judge, words in found.items()]
