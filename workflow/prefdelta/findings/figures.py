"""Figures: one kind for each sort of question, drawn from a result table, with the answer in words beside it."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prefdelta.audit.balance import COVARIATES, IMBALANCE
from prefdelta.findings.answers import (
    MANY_PASSES,
    answer_balance,
    answer_experiment,
    answer_judge_audit,
    answer_profile,
    answer_whatif,
    arm_names,
    verdict,
)
from prefdelta.findings.experiment import BASE
from prefdelta.forecast.prediction import read_predictor
from prefdelta.run.atomic import replacing, write_text
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA, DIMENSIONS, LEVELS
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.tables.findings import (
    Balance,
    Capability,
    JudgeAudit,
    Overlap,
    PredictedArms,
    Prediction,
    Regressions,
    Results,
    WhatIf,
)
from prefdelta.tables.io import read_result_csv, read_table
from prefdelta.tables.stages import Pairs

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
MANY_MATRICES = 4  # more of them are drawn only where three pair sets or more are compared
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


def draw_regressions(table: Path | str, output: Path | str, *, study: str, suite: str) -> None:
    """Draws what the gain depends on: for each grid its gains against the delta, and the slopes of every regression."""
    slopes = read_result_csv(table, Regressions)
    models = slopes.filter(pl.col("kind") != "trend").partition_by("model", maintain_order=True)
    figure, axes = _panels(max(1, len(models)) * 2, width=4.6, height=3.6)
    for rows, panel, forest in zip(models, axes[::2], axes[1::2], strict=False):
        model, kind = rows.row(0, named=True)["model"], rows.row(0, named=True)["kind"]
        if kind == "quality":
            results = read_result_csv(paths.TABLE.format(study=study, experiment=model), Results)
            gains = results.filter(pl.col("versus") == BASE, suite=suite, decoding="sampled").filter(pl.col("task").is_null())
            for index, chosen in enumerate(_by_ability(gains, "chosen")):
                line = gains.filter(chosen=chosen).sort("generator_delta")
                colour = list(CRITERION_COLOURS.values())[index % len(CRITERION_COLOURS)]
                panel.errorbar(
                    line["generator_delta"], line["estimate"], yerr=_errors(line), fmt="o-", ms=4, color=colour, label=chosen
                )
            panel.axhline(0, color="black", lw=0.8)
            panel.axvline(0, color="black", lw=0.8)
            panel.set(xlabel="generator-level delta (points of accuracy)", ylabel=GAIN.replace(" (", "\n("), title=model)
            panel.legend(title="chosen", fontsize=8)
            unit = "points of gain for 10 points of accuracy"
        else:
            shown = rows.filter(pl.col("vif").is_not_null())
            panel.barh(shown["term"].to_list(), shown["vif"].to_list(), color="#777777")
            panel.axvline(5, color="black", lw=0.8, ls=":")
            panel.invert_yaxis()
            panel.set(xlabel="variance inflation (above 5: entangled)", title=f"{model}, {rows['n_arms'][0]} arms")
            unit = "points of gain for one level of delta"
        forest.errorbar(rows["estimate"], range(len(rows)), xerr=_errors(rows), fmt="o", ms=5, capsize=2, color=SUITE_COLOURS[0])
        forest.axvline(0, color="black", lw=0.8)
        forest.set_yticks(range(len(rows)), rows["term"].to_list())
        forest.invert_yaxis()
        explained = rows["r2"].drop_nulls()
        forest.set(xlabel=unit, title=f"slopes (R² {explained[0]:.2f})" if len(explained) else "slopes")
    figure.suptitle("What the gain depends on")
    save(figure, output)
    lines = [
        "**What does the gain depend on: the delta, or the chosen side? And the delta in which dimension?**",
        "",
        *(
            f"- {row['model']}, {row['term']}: {verdict(row['estimate'], row['ci_low'], row['ci_high'], row['p_value'], 2)}"
            for row in slopes.iter_rows(named=True)
        ),
        "",
        "*Caveat.* The delta is chosen minus rejected quality, so of the three only two slopes can be told apart. Where ``chosen "
        "+ rejected`` is 0, the delta alone counts; where ``rejected`` is 0, the chosen side alone. The p-values here are not "
        "corrected for their number; those of the claims are.",
        "",
    ]
    write_text("\n".join(lines), Path(output).with_suffix(".rst"))


def draw_judge_audit(table: Path | str, output: Path | str, *, reference: str | None) -> None:
    """Draws how far each judge repeats itself, agrees with the ``reference`` judge and is biased, and how it uses its levels."""
    from matplotlib import pyplot

    audit = read_result_csv(table, JudgeAudit)
    shown = audit.filter(pl.col("generator").is_null() & pl.col("estimate").is_not_null())
    judges = audit["judge"].unique(maintain_order=True).to_list()
    figure, panels = pyplot.subplots(2, 3, figsize=(14, 6.5 + 0.45 * len(judges)), layout="constrained")
    (curves, *agreement), (*biases, levels) = panels
    repeated = shown.filter(statistic="spearman_brown")["judge"].unique(maintain_order=True)
    for style, judge in zip(cycle(("-", "--", ":", "-.")), repeated, strict=False):
        used = shown.filter(judge=judge, statistic="icc").filter(pl.col("n_ratings") == pl.col("n_ratings").max())
        for criterion, colour in CRITERION_COLOURS.items():
            line = shown.filter(judge=judge, statistic="spearman_brown", dimension=criterion)
            curves.plot(line["n_ratings"], line["estimate"], style, color=colour, lw=1.4, label=f"{criterion}, {judge}")
            curves.fill_between(line["n_ratings"], line["ci_low"], line["ci_high"], color=colour, alpha=0.15, lw=0)
            mark = used.filter(dimension=criterion)
            curves.plot(mark["n_ratings"], mark["estimate"], "o", ms=5, color=colour)
    curves.set(xlabel="ratings of a trace (dot: as many as are used)", ylabel="reliability", ylim=(0, 1))
    curves.set_title("does it repeat itself?")
    if len(repeated):
        curves.legend(fontsize=7, loc="lower right")
    others = [judge for judge in judges if judge != reference]
    drawn = {
        "spearman": (agreement[0], f"rank correlation with {reference}"),
        "kappa": (agreement[1], f"weighted kappa with {reference}"),
        "bias": (biases[0], f"rating minus {reference} (levels)"),
        "length_bias": (biases[1], "the same at equal quality, for an SD of tokens\n(square: own family minus others)"),
    }
    markers = {"family_bias": (biases[1], "s")} | {statistic: (panel, "o") for statistic, (panel, _) in drawn.items()}
    for statistic, (panel, marker) in markers.items():
        for index, judge in enumerate(others):
            rows = shown.filter(judge=judge, statistic=statistic)
            places = [CRITERIA.index(name) + _offset(index, len(others)) for name in rows["dimension"]]
            colour = list(CRITERION_COLOURS.values())[index % len(CRITERION_COLOURS)]
            panel.errorbar(rows["estimate"], places, xerr=_errors(rows), fmt=marker, ms=4, lw=1.4, color=colour, label=judge)
    for panel, xlabel in drawn.values():
        panel.set_yticks(range(len(CRITERIA)), CRITERIA if panel in (agreement[0], biases[0]) else [])
        panel.set(xlabel=xlabel if reference else "unknown without a reference judge", ylim=(len(CRITERIA) - 0.5, -0.5))
        panel.locator_params(axis="x", nbins=5)
        if panel in biases:
            panel.axvline(0, color="black", lw=0.8)
    agreement[0].set_title("does it agree?")
    biases[0].set_title("is it too kind or too strict?")
    biases[1].set_title("does it prefer length?")
    agreement[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    bars = [(judge, dimension) for judge in judges for dimension in DIMENSIONS]
    left = np.zeros(len(bars))
    for level, shade in zip(LEVELS, pyplot.colormaps["viridis"](np.linspace(0.05, 0.95, len(LEVELS))), strict=True):
        rows = shown.filter(statistic=f"share_of_{level}")
        shares = {(row["judge"], row["dimension"]): row["estimate"] for row in rows.iter_rows(named=True)}
        widths = np.array([shares.get(bar, 0.0) for bar in bars])
        levels.barh(range(len(bars)), widths, left=left, color=shade, height=0.85, label=str(level))
        left += widths
    levels.set_yticks(range(len(bars)), [f"{judge}, {dimension}" for judge, dimension in bars], fontsize=7)
    levels.set(xlabel="share of ratings", xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5), title="which levels does it give?")
    levels.legend(title="level", loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle("Audit of the judges")
    save(figure, output)
    lines = [
        "**Can the judge be trusted?**",
        "",
        "95 % intervals over prompts:",
        "",
        *(f"- {line}" for line in answer_judge_audit(audit, reference)),
        "",
        "*Caveat.* Reliability says how far a judge repeats itself, not whether it is right, and is higher where traces differ "
        "more: the table has it for each generator. Errors that all repeats share show against the reference judge only; the "
        "reference's own errors do not show at all. Ratings end at the ends of their scale, so a noisy judge rates good traces "
        "lower and bad ones higher without any preference. Equal quality is the same whole level by the reference, within which "
        "traces can still differ a little.",
        "",
    ]
    write_text("\n".join(lines), Path(output).with_suffix(".rst"))


def draw_balance(table: Path | str, output: Path | str) -> None:
    """Draws the size of every standardised mean difference of compared arms (a love plot), a panel for each experiment."""
    from matplotlib import pyplot

    balance = read_result_csv(table, Balance)
    experiments = balance.partition_by("experiment", maintain_order=True)
    n_rows = -(-len(experiments) // 4) or 1
    figure, grid = pyplot.subplots(n_rows, 4, figsize=(17, 6.5 * n_rows), squeeze=False, layout="constrained")
    covariates = list(COVARIATES)
    for place, panel in enumerate(grid.flat):
        if place >= len(experiments):
            panel.set_axis_off()
            continue
        comparisons = experiments[place].partition_by("arm", "versus", maintain_order=True)
        for index, rows in enumerate(comparisons):
            colour = list(CRITERION_COLOURS.values())[index % len(CRITERION_COLOURS)]
            marker = "os^Dv"[index // len(CRITERION_COLOURS) % 5]
            y = [covariates.index(name) for name in rows["covariate"]]
            # Where nothing varies, but the means differ, the difference is beyond any number.
            sizes = rows["smd"].abs().fill_null(10).clip(upper_bound=10)
            name = f"{rows['arm'][0]} against {rows['versus'][0]}"
            panel.plot(sizes, y, marker, ms=4, alpha=0.8, color=colour, label=name)
        panel.axvline(IMBALANCE, color="black", lw=0.8, ls=":")
        panel.set_xscale("symlog", linthresh=IMBALANCE)
        panel.set_xticks([0, IMBALANCE, 1, 10], ["0", str(IMBALANCE), "1", "10"])
        panel.set_yticks(range(len(covariates)), covariates if place % 4 == 0 else [])
        panel.set(xlim=(-0.005, 12), ylim=(len(covariates) - 0.5, -0.5), title=experiments[place]["experiment"][0])
        panel.set_xlabel("size of the standardised mean difference")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=6)
    figure.suptitle("In what compared arms differ")
    save(figure, output)
    lines = [
        "**In what else than their deltas do the arms differ that are compared?**",
        "",
        f"Standardised mean differences whose size is above {IMBALANCE}:",
        "",
        *(f"- {line}" for line in answer_balance(balance)),
        "",
        f"*Caveat.* {IMBALANCE} is the customary line (Austin 2009), not a test: two random sets of n pairs differ by about the "
        "square root of 2/n in any covariate. Arms of different generators are meant to differ in most of these, and ratings by "
        "different judges are not on one scale. Where nothing varies within both arms, a difference cannot be standardised: it "
        "is drawn at 10, as are larger ones.",
        "",
    ]
    write_text("\n".join(lines), Path(output).with_suffix(".rst"))


def draw_prediction(table: Path | str, arms: Path | str, output: Path | str, *, study: str, suite: str) -> None:
    """Draws predicted against measured gains of generators that the fit did not have, with the worst arms named, and R^2."""
    splits, rows = read_result_csv(table, Prediction), read_result_csv(arms, PredictedArms)
    figure, axes = _panels(3, width=4.6, height=4.2)
    columns = {"predicted": "held-out pair of generators", "predicted_new_generators": "both generators held out"}
    worst: list[str] = []
    for panel, (column, title) in zip(axes, columns.items(), strict=False):
        shown = rows.filter(pl.col(column).is_not_null())
        for index, method in enumerate(shown["method"].unique(maintain_order=True)):
            part = shown.filter(method=method)
            colour = list(CRITERION_COLOURS.values())[index % len(CRITERION_COLOURS)]
            panel.errorbar(part[column], part["estimate"], yerr=_errors(part), fmt="o", ms=4, lw=0.8, color=colour, label=method)
        far = shown.sort((pl.col("estimate") - pl.col(column)).abs(), descending=True).head(5)
        for number, row in enumerate(far.iter_rows(named=True), start=1):
            panel.annotate(str(number), (row[column], row["estimate"]), xytext=(4, 3), textcoords="offset points", fontsize=8)
            name = f"{row['method']}, {row['judge']}, {row['chosen']} over {row['rejected']}, {row['selection']}"
            worst.append(f"- {title}, {number}: {name}: measured {row['estimate']:+.1f}, predicted {row[column]:+.1f}")
        panel.axline((0, 0), slope=1, color="black", lw=0.8)
        panel.set(xlabel="predicted gain (points)", ylabel=GAIN.replace(" (", "\n("), title=title)
        if len(shown):
            panel.legend(fontsize=8)
    known = splits.filter(pl.col("r2").is_not_null())
    names = [f"{row['split']} (n={row['n_arms']})" for row in known.iter_rows(named=True)]
    axes[2].barh(names, known["r2"].clip(-1), color="#777777")
    axes[2].axvline(0, color="black", lw=0.8)
    axes[2].invert_yaxis()
    axes[2].set(xlabel="R² (below -1: drawn at -1)", title="how well gains are predicted")
    figure.suptitle(f"Gain on {suite}, predicted before training")
    save(figure, output)
    lines = [
        "**Can the gain be predicted before training?**",
        "",
        *(
            f"- {row['split']}: R² {'unknown' if row['r2'] is None else format(row['r2'], '.2f')}, {row['n_arms']} arms"
            for row in splits.iter_rows(named=True)
        ),
        "",
        "Farthest from their predictions:",
        "",
        *worst,
        "",
        f"*Caveat.* Fitted and tested on the arms of {study}, which share policies, prompts and evaluation items. Models of "
        "another kind or size need a fit of their own.",
        "",
    ]
    write_text("\n".join(lines), Path(output).with_suffix(".rst"))


def draw_whatif(
    table: Path | str,
    overlap: Path | str,
    output: Path | str,
    *,
    study: str,
    suite: str,
    predictor: str | None,
    identical_pairs: float,
    truncated: float,
) -> None:
    """Draws what each arm will be: deltas, predicted gain on ``suite``, budget; and which pairs the arms of two generators share.

    ``identical_pairs`` and ``truncated``: the gates that the caption names arms by.
    """
    from matplotlib import pyplot

    arms, groups = read_result_csv(table, WhatIf), read_result_csv(overlap, Overlap).partition_by("chosen", "rejected")
    if len(groups) > MANY_MATRICES:
        groups = [rows for rows in groups if len(rows) > 1]  # of at least three pair sets
    matrices = [_shares(rows) for rows in groups]
    heights = [1.6 + 0.2 * len(arms), *(2.4 + 0.26 * len(labels) for labels, _ in matrices)]
    figure = pyplot.figure(figsize=(14, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    deltas, gains, budget = parts[0].subplots(1, 3, sharey=True)
    places = list(range(len(arms)))
    colour, other = SUITE_COLOURS[:2]
    deltas.hlines(places, arms["delta_overall_q10"], arms["delta_overall_q90"], color=colour, lw=4, alpha=0.35)
    deltas.plot(arms["delta_overall_q50"], places, "|", ms=8, color="black", label="median")
    deltas.plot(arms["delta_overall"], places, "o", ms=4, color=colour, label="mean")
    deltas.axvline(0, color="black", lw=0.8)
    deltas.set(xlabel="overall delta (levels; bar: middle 80 % of pairs)", title="deltas", ylim=(len(arms) - 0.5, -0.5))
    deltas.set_yticks(places, arm_names(arms), fontsize=8)
    deltas.legend(fontsize=8)
    known = arms.with_row_index("place").drop_nulls("predicted_gain")
    gains.plot(known["predicted_gain"], known["place"], "o", ms=4, color=colour)
    known = known.drop_nulls("predicted_low")
    gains.hlines(known["place"], known["predicted_low"], known["predicted_high"], color=colour, lw=1.4)
    gains.axvline(0, color="black", lw=0.8)
    gains.set(xlabel=f"points on {suite}, 95 % intervals", title="predicted gain" if predictor else "no predictor")
    budget.barh(places, arms["n_training_tokens"], color="#777777")
    for place, row in enumerate(arms.iter_rows(named=True)):
        text, shade = f" {row['n_pairs']:.0f} pairs x {row['n_passes']:.2g}", other if row["n_passes"] > MANY_PASSES else "black"
        budget.text(row["n_training_tokens"], place, text, va="center", fontsize=7, color=shade)
    budget.set(xlabel="completion tokens of a training (pairs x passes)", title="budget")
    budget.margins(x=0.25)
    budget.locator_params(axis="x", nbins=4)
    for part, rows, (labels, values) in zip(parts[1:], groups, matrices, strict=True):
        panel = part.subplots()
        panel.imshow(values, cmap="Blues", vmin=0, vmax=1)
        panel.set_anchor("W")
        panel.grid(False)
        for (down, along), share in np.ndenumerate(values):
            text = f"{100 * share:.0f}"
            panel.text(along, down, text, ha="center", va="center", fontsize=6, color="white" if share > 0.6 else "black")
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        panel.set_yticks(range(len(labels)), labels, fontsize=7)
        panel.set_title(f"{rows['chosen'][0]} over {rows['rejected'][0]}: shared pairs, % of the smaller set", loc="left")
    figure.suptitle(f"{study} before any training")
    save(figure, output)
    lines = [
        "**What will each arm be, before it is trained?**",
        "",
        *(f"- {line}" for line in answer_whatif(arms, identical_pairs, truncated)),
        "",
        "*Caveat.* Means over an arm's seeds. The budget leaves out traces and ratings, which are there already.",
    ]
    if predictor:
        made = read_predictor(predictor)
        source = "the micro-world" if predictor == paths.SHIPPED else f"the study {made.study}"
        lines[-1] += (
            f" Gains are predicted by a fit on {made.n_arms} arms of {source} ({made.suite}): models, tasks and lengths of "
            "another kind can gain more or less than their intervals say."
        )
        if made.study == study:
            lines[-1] += " Those are this study's own arms, so here the prediction is no test."
    write_text("\n".join([*lines, ""]), Path(output).with_suffix(".rst"))


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
