"""What an arm's gain depends on: a ladder's trend, chosen against rejected quality, and the deltas in all dimensions."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.answers.settings import FitSettings, RegressionsSettings
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.whatif import rated_dimensions, read_whatif
from prefdelta.measure.intervals import Array, Interval
from prefdelta.measure.scores import suite_scores
from prefdelta.measure.settings import ArmSettings, SuiteSettings
from prefdelta.measure.slopes import Departure, Slope, additive, both, departure, jackknifed, line, of_generators
from prefdelta.measure.verdict import decided, departure_verdict, verdict
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import ARM, read_result_csv, rows_to_table, write_result_table

BEST = "step_coherence"  # the dimension that came out on top in the paper
PER = 10.0  # points of accuracy that a generator's slope is given for
MIRRORED = (
    "Where generators stand on both sides, that the slopes of chosen and rejected mirror each other is no finding: a step on (i "
    "over j) is to first order minus that on (j over i), by the form of the loss."
)
DEPARTURES = ("linearity", "additivity")  # terms that say by how much arms depart from a form


class Regressions(Table):
    """What the gain (points of sampled accuracy over the base policy) depends on. Key: fit, policy, among, term.

    ``fit`` is the experiment (or dimensions), ``among`` the words that tell the arms from others of the experiment (null where
    all are in one fit). Slopes are for 10 points of a generator's accuracy or of a generator-level delta (``quality``,
    ``trend``), and for a level of a mean sample-level delta (``dimensions``); ``curvature`` is the change of the trend's slope
    for each further 10 points. ``linearity`` and ``additivity`` are standard deviations (points) of the gains about a line, or
    about the sum of a part of the chosen and one of the rejected generator, beyond noise. The ``primary`` slope is tested at the
    full level by itself; the others are corrected (`decided`) for those of the same fit, trends for those of the other arms of
    the experiment. ``vif``: variance inflation factor; ``r2``: of the whole fit.
    """

    fit: str
    policy: str
    kind: str = pa.Field(isin=["trend", "quality", "dimensions"])
    among: str = pa.Field(nullable=True)
    term: str
    primary: bool
    suite: str
    estimate: float
    ci_low: float
    ci_high: float
    standard_error: float = pa.Field(nullable=True, ge=0)
    freedom: float = pa.Field(nullable=True, gt=0)
    adjusted_low: float
    adjusted_high: float
    p_value: float = pa.Field(ge=0, le=1)
    p_holm: float = pa.Field(ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    vif: float = pa.Field(nullable=True, ge=0)
    r2: float = pa.Field(nullable=True, le=1)
    n_arms: int = pa.Field(gt=0)
    n_items: int = pa.Field(gt=0)

    class Config:
        unique = ["fit", "policy", "among", "term"]


def tabulate_regressions(
    generator_deltas: Path,
    whatif: Path,
    evals: dict[Cell, Path],
    bases: dict[str, Path],
    table: Path,
    *,
    settings: RegressionsSettings,
) -> None:
    """Writes the `Regressions`: of each fit, how the gain in sampled accuracy depends on its terms, by its kind.

    - ``trend``: the gain's slope on the generator-level delta, its curvature, and whether the arms lie on a line (linearity).
    - ``quality``: gain = a + b chosen + c rejected, in accuracy of the generators; c is 0 where the chosen side alone counts.
      The sum b + c is given only where no generator is on both sides: else it is about 0 by the form of the loss, since a step
      on (i over j) is to first order minus that on (j over i). And whether gains are such sums at all (additivity).
    - ``dimensions``: the gain on the mean sample-level deltas in all of the judge's dimensions, with variance inflation factors;
      and step coherence's slope, which the paper found to be the best criterion, minus that of each other dimension, where the
      judge rates it.

    How sure a slope is: `measure.slopes`. What takes more arms, generators or seeds than a fit has is left out. ``bases`` are the
    policies' own evaluations.
    """
    accuracy = {side: _accuracies(generator_deltas, f"{side}_mean") for side in ("chosen", "rejected")}
    planned = read_whatif(whatif)
    deltas = {tuple(row[word] for word in ARM): row for row in planned.iter_rows(named=True)}
    rows: list[dict[str, Any]] = []
    families: dict[tuple[str, ...], list[tuple[dict[str, Any], Interval]]] = {}
    for fit in settings.fits:
        arms = fit.arms
        gains = Gains(arms, evals, bases, settings.suite, settings.ungraded)
        common: dict[str, Any] = {"fit": fit.fit, "policy": arms[0].policy, "kind": fit.kind, "among": fit.among}
        common |= {"suite": settings.suite, "primary": False, "n_arms": len(arms), "n_items": gains.n_items}
        slopes: dict[str, Slope | None] = {}
        departures: dict[str, Departure | None] = {}
        inflation, r2 = [], None
        if fit.kind == "dimensions":
            by_arm = [deltas[tuple(arm.words.values())] for arm in arms]
            of_arms = {name: [row[f"delta_{name}"] for row in by_arm] for name in rated_dimensions(planned.columns)}
            of_judge = {name: of_each for name, of_each in of_arms.items() if None not in of_each}
            terms = np.array(list(of_judge.values())).T
            slopes = _dimensions(list(of_judge), fit, terms, settings.models)
        else:
            sides = {side: [known[arm.chosen, arm.rejected] / PER for arm in arms] for side, known in accuracy.items()}
        if fit.kind == "trend":
            delta = np.subtract(sides["chosen"], sides["rejected"])
            degrees = {"generator_delta": 1, "curvature": 2}
            slopes = {term: _trend(fit, delta, degree, settings.models) for term, degree in degrees.items()}
            departures["linearity"] = gains.departure(np.vander(delta, 2))
        elif fit.kind == "quality":
            slopes = _qualities(arms, sides)
            names = [arm.chosen for arm in arms], [arm.rejected for arm in arms]
            departures["additivity"] = gains.departure(additive(*names))
            terms = np.array(list(sides.values())).T
        if fit.kind != "trend" and len(arms) > terms.shape[1] + 1:
            plane = LeastSquares(terms, gains.estimates)
            inflation, r2 = plane.inflation, plane.r2
        for (term, slope), vif in zip_longest(slopes.items(), inflation[: len(slopes)]):
            if slope is not None:
                primary = fit.primary and term == "generator_delta"
                rows.append(common | {"term": term, "primary": primary, "vif": vif, "r2": r2})
                # A trend is one question, whatever else is asked of its arms.
                family = (fit.fit, term, str(primary)) if fit.kind == "trend" else (fit.fit, fit.among or "")
                families.setdefault(family, []).append((rows[-1], slope.interval(gains.scores, gains.sizes)))
        for term, found in departures.items():
            if found is not None:
                bounds = {"adjusted_low": found.ci_low, "adjusted_high": found.ci_high, "p_holm": found.p_value}
                rows.append(common | vars(found) | bounds | {"term": term})
    for members in families.values():
        decisions = decided([interval for _, interval in members])
        for (row, interval), decision in zip(members, decisions, strict=True):
            row |= vars(interval) | decision
    write_result_table(rows_to_table(rows, Regressions), Regressions, table)


def _trend(fit: FitSettings, delta: Array, degree: int, models: dict[str, str]) -> Slope | None:
    """Arms that share one side only are independent about a line, else generators are left out one by one."""
    if len({arm.chosen for arm in fit.arms}) == len(fit.arms) or len({arm.rejected for arm in fit.arms}) == len(fit.arms):
        return line(delta, degree)
    powers = (delta - delta.mean())[:, None] ** np.arange(1, degree + 1)
    return jackknifed(powers, degree * np.eye(degree)[-1], _sides(fit.arms, models))


def _qualities(arms: list[ArmSettings], accuracy: dict[str, list[float]]) -> dict[str, Slope | None]:
    chosen, rejected = [arm.chosen for arm in arms], [arm.rejected for arm in arms]
    one, other = of_generators(chosen, rejected, accuracy["chosen"]), of_generators(rejected, chosen, accuracy["rejected"])
    added = both(one, other) if one and other and not set(chosen) & set(rejected) else None
    return {"chosen": one, "rejected": other, "chosen + rejected": added}


def _dimensions(names: list[str], fit: FitSettings, terms: Array, models: dict[str, str]) -> dict[str, Slope | None]:
    if len(fit.arms) < terms.shape[1] + 3:
        return {}
    units = dict(zip(names, np.eye(len(names)), strict=True))
    if BEST in names:
        units |= {f"{BEST} - {other}": units[BEST] - units[other] for other in names if other != BEST}
    return {name: jackknifed(terms, unit, _sides(fit.arms, models)) for name, unit in units.items()}


def _sides(arms: list[ArmSettings], models: dict[str, str]) -> list[frozenset[str]]:
    """The models of each arm's generators: two samples of one model are no two generators."""
    return [frozenset(models.get(side, side) for side in (arm.chosen, arm.rejected)) for arm in arms]


def plot_regressions(table: Path, grids: dict[str, Path], figure: Path, *, settings: SuiteSettings) -> None:
    """Plots what the gain depends on: for each of ``grids`` its gains against the delta, and the slopes of every regression."""
    from prefdelta.measure import plotting

    slopes = read_result_csv(table, Regressions)
    shown = slopes.filter(pl.col("kind") != "trend", ~pl.col("term").is_in(DEPARTURES))
    fits = shown.partition_by("fit", "among", maintain_order=True)
    plot, panels = plotting.panels(max(1, len(fits)) * 2, width=4.6, height=3.6)
    for rows, panel, forest in zip(fits, panels[::2], panels[1::2], strict=False):
        fit, kind, among = rows.select("fit", "kind", "among").row(0)
        title = ", ".join(filter(None, (fit, among)))
        if kind == "quality":
            gains = read_result_csv(grids[fit], Results).filter(pl.col("task").is_null())
            gains = gains.filter(versus=BASE, suite=settings.suite, decoding="sampled")
            if among:
                gains = gains.filter(pl.col("arm").str.starts_with(f"{among}, "))
            for index, chosen in enumerate(plotting.by_ability(gains, "chosen")):
                line = gains.filter(chosen=chosen).sort("generator_delta")
                bars, colour = plotting.errors(line), plotting.colour(index)
                panel.errorbar(line["generator_delta"], line["estimate"], yerr=bars, fmt="o-", ms=4, color=colour, label=chosen)
            panel.axhline(0, color="black", lw=0.8)
            panel.axvline(0, color="black", lw=0.8)
            panel.set(xlabel="generator-level delta (points of accuracy)", ylabel=plotting.GAIN_IN_TWO_LINES, title=title)
            panel.legend(title="chosen", fontsize=8)
            unit = "points of gain for 10 points of accuracy"
        else:
            shown = rows.filter(pl.col("vif").is_not_null())
            panel.barh(shown["term"].to_list(), shown["vif"].to_list(), color=plotting.GREY)
            panel.axvline(5, color="black", lw=0.8, ls=":")
            panel.invert_yaxis()
            panel.set(xlabel="variance inflation (above 5: entangled)", title=f"{title}, {rows['n_arms'][0]} arms")
            unit = "points of gain for one level of delta"
        bars, colour = plotting.errors(rows), plotting.colour(0)
        forest.errorbar(rows["estimate"], range(len(rows)), xerr=bars, fmt="o", ms=5, capsize=2, color=colour)
        forest.axvline(0, color="black", lw=0.8)
        forest.set_yticks(range(len(rows)), rows["term"].to_list())
        forest.invert_yaxis()
        explained = rows["r2"].drop_nulls()
        forest.set(xlabel=unit, title=f"slopes (R² {explained[0]:.2f})" if len(explained) else "slopes")
    lines = [
        f"{', '.join(filter(None, (row['fit'], row['among'], row['term'])))}: "
        + (departure_verdict(row) if row["term"] in DEPARTURES else verdict(row, 2))
        for row in slopes.iter_rows(named=True)
    ]
    plotting.save(
        plot,
        figure,
        title="What the gain depends on",
        question="What does the gain depend on: the delta, or the chosen side? And the delta in which dimension?",
        answers={"": lines},
        caveat=f"The delta is chosen minus rejected quality, so of the three only two slopes can be told apart. {MIRRORED}",
    )


class Gains:
    """Sampled scores on ``suite`` of all cells of some arms of a policy, and what each arm gains over it (``estimates``).

    ``scores`` are (n_arms, n_items) means over seeds, ``sizes`` the numbers of items by task.
    """

    def __init__(
        self, arms: list[ArmSettings], evals: dict[Cell, Path], bases: dict[str, Path], suite: str, ungraded: float
    ) -> None:
        files = [[bases[arms[0].policy]], *([evals[cell] for cell in arm.cells] for arm in arms)]
        (base, *self._sides), self.sizes = suite_scores(files, suite, ungraded)
        self.n_items = base.shape[1]
        self.scores: Array = np.stack([side.mean(axis=0) for side in self._sides])
        self.estimates: Array = self.scores.mean(axis=1) - base.mean()

    def departure(self, design: Array) -> Departure | None:
        """Of the arms from the fit with ``design``."""
        return departure(design, self._sides, self.sizes)


class LeastSquares:
    """``gains`` (n,) on ``terms`` (n, p) with an intercept: how much it explains, and how far its terms go together."""

    def __init__(self, terms: Array, gains: Array) -> None:
        design = np.column_stack([np.ones(len(terms)), terms])
        residuals = gains - design @ np.linalg.pinv(design) @ gains
        total = float(((gains - gains.mean()) ** 2).sum())
        self.r2 = 1 - float(residuals @ residuals) / total if total else None
        # Of a term that does not vary, or is a combination of others, nothing can be told.
        self.inflation: list[float | None] = [None] * terms.shape[1]
        if terms.std(axis=0).all() and np.linalg.cond(correlations := np.atleast_2d(np.corrcoef(terms, rowvar=False))) <= 1e12:
            self.inflation = np.diag(np.linalg.inv(correlations)).tolist()


def _accuracies(generator_deltas: Path, side: str) -> dict[tuple[str, str], float]:
    deltas = read_result_csv(generator_deltas, GeneratorDeltas).filter(quantity="accuracy")
    return {(row["chosen"], row["rejected"]): row[side] for row in deltas.iter_rows(named=True)}
