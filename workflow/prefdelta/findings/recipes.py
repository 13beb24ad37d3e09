"""Recipes: the best of each method's sweep, chosen on a validation suite, so that methods are compared at their best."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.findings.experiment import BASE
from prefdelta.findings.settings import RecipesFigureSettings, RecipesSettings, SweptRecipe
from prefdelta.measure.intervals import Interval, contrast, item_weights
from prefdelta.measure.scores import clipped, item_scores, stack
from prefdelta.measure.verdict import decided, verdict
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_result_csv, read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Shifts

AXES = ("learning_rate", "beta", "n_steps")


class Recipes(Table):
    """Accuracy (points) of every recipe of a sweep, the mean over its pair sets; or the paired difference to ``versus``.

    ``recipe`` is the lattice's method, ``method`` the one whose sweep it is of. ``best``: of all recipes of the method it has the
    highest accuracy on the validation suite in this decoding; ``edge`` then names the axes on which it is at an end of the grid,
    beyond which a better one may lie. ``versus`` is `base`, the untuned policy, or, of a best recipe, another method's best one:
    such differences have p-values (two-sided; ``p_holm``: corrected for all of them on the same policy, suite and decoding). On
    the validation suite a best recipe's accuracy is too high, since it was chosen for it; on other suites it is not. ``kl``
    (nats): of the recipe's policies from the untuned one, on sampled answers to the suite, by Monte Carlo, so that a small one
    may come out below 0. Key: policy, recipe, suite, decoding, versus.
    """

    experiment: str
    policy: str
    method: str
    recipe: str
    trainer: str
    loss: str = pa.Field(nullable=True)
    learning_rate: float = pa.Field(gt=0)
    beta: float = pa.Field(nullable=True, gt=0)
    n_steps: int = pa.Field(gt=0)
    suite: str
    decoding: str
    best: bool
    edge: str = pa.Field(nullable=True)
    versus: str = pa.Field(nullable=True)
    kl: float
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    adjusted_low: float = pa.Field(nullable=True)
    adjusted_high: float = pa.Field(nullable=True)
    n_items: int = pa.Field(gt=0)
    n_ungraded: int = pa.Field(ge=0)
    n_pair_sets: int = pa.Field(gt=0)
    n_seeds: int = pa.Field(gt=0)

    class Config:
        unique = ["policy", "recipe", "suite", "decoding", "versus"]


def tabulate_recipes(
    evals: dict[Cell, Path], shifts: dict[Cell, Path], bases: dict[str, Path], table: Path, *, settings: RecipesSettings
) -> None:
    """Writes the `Recipes` of an experiment, whose cells have ``evals`` and ``shifts``, and whose policies ``bases``.

    Every pair set weighs the same. Raises ScoresError where too many answers are ungraded.
    """
    files = [*bases.values(), *evals.values()]
    found = dict(zip(files, item_scores(files, settings.bootstrap.ungraded), strict=True))
    untuned = {policy: [[found[file]]] for policy, file in bases.items()}
    scores = {
        (recipe.policy, recipe.recipe): [[found[evals[cell]] for cell in cells] for cells in recipe.cells]
        for recipe in settings.recipes
    }
    moved = {cell: _divergences(file) for cell, file in shifts.items()}
    places = [place for place, shape in enumerate(found[files[0]]) if shape.task is None]
    best: dict[tuple[str, str, str], SweptRecipe] = {}
    for place in places:
        if (shape := found[files[0]][place]).suite == settings.validation:
            means = [_mean(scores[recipe.policy, recipe.recipe], place) for recipe in settings.recipes]
            for number in np.argsort(np.negative(means), kind="stable"):  # of equals the first
                recipe = settings.recipes[number]
                best.setdefault((recipe.policy, recipe.method, shape.decoding), recipe)
    rows = []
    for place in places:
        shape = found[files[0]][place]
        weights = item_weights(shape.sizes, settings.bootstrap.n_resamples, settings.bootstrap.seed)
        winners = [recipe for recipe in settings.recipes if best[recipe.policy, recipe.method, shape.decoding] is recipe]
        compared: list[tuple[SweptRecipe, str | None, list[list[Any]]]] = []
        for recipe in settings.recipes:
            compared += [(recipe, None, []), (recipe, BASE, untuned[recipe.policy])]
        compared += [
            (recipe, other.recipe, scores[other.policy, other.recipe])
            for other, recipe in combinations(winners, 2)
            if other.policy == recipe.policy
        ]
        tested: dict[str, list[tuple[dict[str, Any], Interval]]] = {}
        for recipe, versus, others in compared:
            own, is_best = scores[recipe.policy, recipe.recipe], any(recipe is winner for winner in winners)
            sides = [stack(seeds, place) for seeds in (*own, *others)]
            coefficients = [1 / len(own)] * len(own) + [-1 / len(others) for _ in others]
            interval = contrast(coefficients, sides, weights, settings.bootstrap.seed, shape.sizes)
            row = {"experiment": settings.experiment, **recipe.model_dump(exclude={"cells"})}
            row |= {"suite": shape.suite, "decoding": shape.decoding, "versus": versus, "n_items": len(shape.values)}
            row |= {"n_ungraded": sum(seed[place].n_ungraded for seeds in (*own, *others) for seed in seeds)}
            row |= {"n_pair_sets": len(own), "n_seeds": len(own[0]), "best": is_best}
            row |= {"kl": float(np.mean([moved[cell][shape.suite] for cells in recipe.cells for cell in cells]))}
            row |= {"edge": _edge(recipe, settings.recipes) if is_best else None}
            rows.append(row | clipped(interval, 0 if versus is None else -100))
            if versus not in (None, BASE):
                tested.setdefault(recipe.policy, []).append((rows[-1], interval))
        for family in tested.values():
            for (row, _), decision in zip(family, decided([interval for _, interval in family], limit=100), strict=True):
                row |= decision
    write_result_table(rows_to_table(rows, Recipes), Recipes, table)


def _divergences(shifts: Path) -> dict[str, float]:
    """suite -> KL divergence from the untuned policy (nats), the mean over the suite's tasks."""
    answers = read_table(shifts, Shifts).filter(kind="answer")
    by_task = answers.group_by("suite", "task").agg(kl=(pl.col("logp") - pl.col("base_logp")).mean())
    return dict(by_task.group_by("suite").agg(pl.col("kl").mean()).iter_rows())


def _mean(sides: list[list[Any]], place: int) -> float:
    return float(np.mean([stack(seeds, place).mean() for seeds in sides]))


def _edge(best: SweptRecipe, recipes: list[SweptRecipe]) -> str | None:
    """On which axes ``best`` is at an end of the grid of its method."""
    grid = [recipe for recipe in recipes if (recipe.policy, recipe.method) == (best.policy, best.method)]
    ends = []
    for axis in AXES:
        values, own = {getattr(recipe, axis) for recipe in grid}, getattr(best, axis)
        if len(values) > 1 and own in (min(values), max(values)):
            ends.append(f"{axis} {'lowest' if own == min(values) else 'highest'}")
    return ", ".join(ends) or None


def plot_recipes(table: Path, figure: Path, *, settings: RecipesFigureSettings) -> None:
    """Plots the gain on the validation suite: for each axis of the grids, of each method's best recipe at each value; and of all
    recipes by how far they have moved the policy.
    """
    from prefdelta.measure import plotting

    results = read_result_csv(table, Recipes)
    gains = results.filter(versus=BASE, suite=settings.validation)
    axes = [axis for axis in AXES if gains[axis].drop_nulls().n_unique() > 1] or ["n_steps"]
    policies, decodings = (gains[name].unique(maintain_order=True) for name in ("policy", "decoding"))
    plot, panels = plotting.panels(len(axes) + 1, width=4.0, height=3.8, sharey=True)
    for panel, axis in zip(panels, [*axes, "kl"], strict=True):
        for index, (policy, method) in enumerate(gains.select("policy", "method").unique(maintain_order=True).iter_rows()):
            for number, (decoding, line) in enumerate(zip(decodings, ("-", "--"), strict=False)):
                rows = gains.filter(policy=policy, method=method, decoding=decoding).drop_nulls(axis)
                if axis != "kl":
                    rows = rows.sort("estimate", descending=True).unique(axis, keep="first").sort(axis)
                name = f"{method}, {decoding}" + (f", {policy}" if len(policies) > 1 else "")
                panel.errorbar(
                    rows[axis] * (1.0 if axis == "kl" else 1.03 ** (2 * index + number)),
                    rows["estimate"],
                    yerr=plotting.errors(rows),
                    fmt=f"o{line}" if axis != "kl" else "o" if line == "-" else "^",
                    ms=4,
                    lw=1.2,
                    capsize=2,
                    color=plotting.colour(index),
                    label=name,
                )
        panel.axhline(0, color="black", lw=0.8)
        if axis == "kl":
            panel.set_xlabel("KL divergence from the base policy (nats)")
            continue
        panel.set_xscale("log")
        values = gains[axis].drop_nulls().unique().sort()
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.set_xlabel(axis.replace("n_", "").replace("_", " ") + " (best over the other axes)")
    panels[0].set_ylabel(f"gain over the base policy on {settings.validation} (points)")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    introduction = f"The best recipe of each method, chosen by its accuracy on {settings.validation} (points, 95 % intervals):"
    answers = {introduction: answer_recipes(results, settings.validation, settings.answered)}
    answers["At equal divergence from the base policy, the best recipe up to there:"] = answer_kl(results, settings.validation)
    plotting.save(plot, figure, title=settings.title, question=settings.question, answers=answers, caveat=settings.caveat)


def answer_recipes(results: pl.DataFrame, validation: str, answered: str) -> list[str]:
    """A line for each policy, method and decoding: its best recipe, and how it compares with those of the other methods."""
    lines = []
    winners = results.filter(pl.col("best"), suite=validation).filter(pl.col("versus").is_null())
    for row in winners.iter_rows(named=True):
        rows = results.filter(policy=row["policy"], recipe=row["recipe"], decoding=row["decoding"], suite=answered)
        by_versus = {other["versus"]: other for other in rows.iter_rows(named=True)}
        own, base = by_versus.pop(None), by_versus.pop(BASE)
        said = [f"on {answered} {_with_interval(own)}, a gain of {_with_interval(base, '+')}"]
        said += [f"against {versus} " + verdict(other, words=("higher by", "lower by")) for versus, other in by_versus.items()]
        edge = f" At the edge of the grid ({row['edge']}): a better one may lie beyond it." if row["edge"] else ""
        of = f"**{row['method']}**, {row['decoding']}" + (f", {row['policy']}" if winners["policy"].n_unique() > 1 else "")
        lines.append(f"{of}: {row['recipe']}, {_with_interval(row)} on {validation}; {'; '.join(said)}.{edge}")
    return lines


def answer_kl(results: pl.DataFrame, validation: str) -> list[str]:
    """A line for each policy and decoding: the accuracy of each method `at_equal_kl`, on the validation suite."""
    lines = []
    shown = results.filter(suite=validation).filter(pl.col("versus").is_null())
    gains = results.filter(suite=validation, versus=BASE)
    for (policy, decoding), rows in shown.partition_by("policy", "decoding", as_dict=True, maintain_order=True).items():
        base = rows["estimate"][0] - gains.filter(policy=policy, decoding=decoding, recipe=rows["recipe"][0])["estimate"][0]
        untuned = rows.select("method", kl=pl.lit(0.0), score=pl.lit(base)).unique(maintain_order=True)
        found = at_equal_kl(pl.concat([untuned, rows.select("method", pl.col("kl").clip(lower_bound=0), score="estimate")]))
        said = ", ".join(f"{row['method']} {row['score']:.1f}" for row in found.iter_rows(named=True))
        of = f"**{decoding}**" + (f", {policy}" if shown["policy"].n_unique() > 1 else "")
        lines.append(f"{of}: at {found['kl'][0]:.2g} nats, {said} on {validation}, from {base:.1f}.")
    return lines


def _with_interval(row: dict[str, Any], sign: str = "") -> str:
    return f"{row['estimate']:{sign}.1f} [{row['ci_low']:{sign}.1f}, {row['ci_high']:{sign}.1f}]"


def at_equal_kl(points: pl.DataFrame) -> pl.DataFrame:
    """Each method's score at the largest KL divergence that all methods reach: method, kl, score.

    ``points`` are method, kl (nats) and score of its recipes. Every method begins at the untuned policy, which must be among them
    (kl 0). A method's curve is the best score that one of its recipes has at most at that divergence, linear between those that
    are better than all of smaller divergence (as in Gao et al. 2023, arXiv 2210.10760, who compare policies at equal divergence);
    never drawn beyond the method's own recipes. The best of noisy scores is too high, the more so the more recipes a method has.
    Raises ValueError where a method lacks the untuned policy.
    """
    curves = {}
    for (method,), rows in points.sort("kl", "score").partition_by("method", as_dict=True, maintain_order=True).items():
        if rows["kl"][0] != 0:
            raise ValueError(f"the recipes of {method} have no point at a divergence of 0, the untuned policy")
        frontier = rows.filter(pl.col("score") > pl.col("score").cum_max().shift(fill_value=-np.inf)).unique("kl", keep="last")
        curves[method] = frontier.sort("kl")
    common = min(float(rows["kl"].max()) for rows in points.partition_by("method"))  # type: ignore[arg-type]
    return pl.DataFrame(
        [
            {"method": method, "kl": common, "score": float(np.interp(common, curve["kl"], curve["score"]))}
            for method, curve in curves.items()
        ]
    )
