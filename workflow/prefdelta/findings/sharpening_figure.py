"""The figure of what gains are made of, with the answer in words as caption."""

from pathlib import Path

import polars as pl

from prefdelta.findings.experiment import BASE
from prefdelta.findings.sharpening import BEST, Row, Sharpening
from prefdelta.measure import plotting
from prefdelta.measure.settings import SuiteSettings
from prefdelta.measure.verdict import verdict
from prefdelta.tables.io import read_result_csv

PARTS = {"sharpening": "sampled, sharpening: the base policy at equal entropy", "new": "sampled, new: the rest"}
GREEDY = {
    "greedy_gain": "greedy, over the base policy's greedy",
    "greedy_over_best": "greedy, over the base policy at its best temperature",
}


def plot_sharpening(table: Path, figure: Path, *, settings: SuiteSettings) -> None:
    """Plots each arm's sampled gain as the sum of its two parts, and beside it the gain of greedy answers."""
    results = read_result_csv(table, Sharpening)
    shown = results.filter(pl.col("suite") == settings.suite, ~pl.col("arm").is_in([BASE, BEST]))
    arms = shown["arm"].unique(maintain_order=True).to_list()
    plot, (sampled, greedy) = plotting.panels(2, width=5.6, height=2.2 + 0.3 * len(arms), sharey=True)
    starts = dict.fromkeys(arms, 0.0)
    for index, (quantity, name) in enumerate(PARTS.items()):
        rows = shown.filter(quantity=quantity)
        offsets = [arms.index(arm) + plotting.offset(index, len(PARTS)) for arm in rows["arm"]]
        left = [starts[arm] for arm in rows["arm"]]
        sampled.barh(offsets, rows["estimate"], left=left, height=0.18, color=plotting.colour(index), label=name)
        starts |= {arm: start + value for arm, start, value in zip(rows["arm"], left, rows["estimate"], strict=True)}
    gains = shown.filter(quantity="gain")
    places = [arms.index(arm) for arm in gains["arm"]]
    sampled.errorbar(
        gains["estimate"], places, xerr=plotting.errors(gains), fmt="o", ms=4, lw=1.4, color="black", label="sampled, gain"
    )
    for index, (quantity, name) in enumerate(GREEDY.items()):
        rows = shown.filter(quantity=quantity)
        offsets = [arms.index(arm) + plotting.offset(index, len(GREEDY)) for arm in rows["arm"]]
        plotting.dots(greedy, rows, offsets, index, name)
    for panel, title in ((sampled, "sampled"), (greedy, "greedy")):
        panel.axvline(0, color="black", lw=0.8)
        panel.set(xlabel=f"points on {settings.suite}, 95 % intervals", title=title)
    sampled.use_sticky_edges = False
    sampled.set_yticks(range(len(arms)), arms, fontsize=8)
    sampled.invert_yaxis()
    plot.legend(loc="outside lower center", ncols=2)
    plotting.save(
        plot,
        figure,
        title="What each gain is made of",
        question="How much of each gain would a lower temperature of the untuned policy do as well, and how much is new?",
        answers={
            f"Accuracy on {settings.suite} (points); entropy and KL of an answer (nats):": answer_sharpening(
                results, settings.suite
            )
        },
        caveat=(
            "At equal entropy, the untuned policy's accuracy is interpolated between the temperatures that it was evaluated at; "
            "an arm with more entropy than at any of them is compared with the highest. The best temperature is chosen on other "
            "items than those that it is compared on. P-values are corrected for all arms."
        ),
    )


def answer_sharpening(results: pl.DataFrame, suite: str) -> list[str]:
    """A line for each policy, and one for each arm."""
    lines = []
    for (policy,), of_policy in results.filter(suite=suite).partition_by("policy", as_dict=True, maintain_order=True).items():
        curve = of_policy.filter(arm=BASE, quantity="accuracy").sort("temperature", descending=True)
        values = [f"{row['estimate']:.1f} at {row['temperature']:g}" for row in curve.iter_rows(named=True)]
        lines.append(f"**{policy}** untuned, by temperature (0: greedy): {', '.join(values)}.")
        arms = of_policy.filter(~pl.col("arm").is_in([BASE, BEST]))
        for (arm,), rows in arms.partition_by("arm", as_dict=True, maintain_order=True).items():
            found: dict[str, Row] = {row["quantity"]: row for row in rows.iter_rows(named=True)}
            made = {name: row["estimate"] for name, row in found.items()}
            said = {name: verdict(found[name]) for name in ("over_best", "greedy_gain") if name in found}
            lines.append(
                f"**{arm}** gains {made['gain']:+.1f}: sharpening {made['sharpening']:+.1f}, new {made['new']:+.1f}. "
                f"Against the base policy at its best temperature: {said['over_best']}."
                + (f" Greedy accuracy: {said['greedy_gain']}." if "greedy_gain" in said else "")
                + f" Entropy {made['entropy']:.1f}, KL {made['kl']:.1f}."
            )
    return lines
