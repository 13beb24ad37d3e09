"""What an arm's gain depends on: a ladder's trend, chosen against rejected quality, and the deltas in the five dimensions."""

from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandera.polars as pa
import polars as pl
from scipy.special import stdtrit

from prefdelta.answers.settings import RegressionsSettings
from prefdelta.findings.experiment import BASE, Results
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.whatif import WhatIf
from prefdelta.measure.intervals import LEVEL, Array, Interval, contrast, item_weights, slope
from prefdelta.measure.scores import suite_scores
from prefdelta.measure.settings import ArmSettings, Bootstrap, SuiteSettings
from prefdelta.measure.verdict import verdict
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import ARM, read_result_csv, rows_to_table, write_result_table

PER = 10.0  # points of accuracy that a generator's slope is given for


class Regressions(Table):
    """What the gain (points of sampled accuracy over the base policy) depends on, for one policy. Key: fit, policy, term.

    Slopes are for 10 points of a generator's accuracy or of a generator-level delta (``quality``, ``trend``), and for a level of
    a mean sample-level delta (``dimensions``). ``vif``: variance inflation factor; ``r2``: of the whole fit.
    """

    fit: str
    policy: str
    kind: str = pa.Field(isin=["trend", "quality", "dimensions"])
    term: str
    suite: str
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float = pa.Field(ge=0, le=1)
    minimum_detectable: float = pa.Field(ge=0)
    vif: float = pa.Field(nullable=True, ge=0)
    r2: float = pa.Field(nullable=True, le=1)
    n_arms: int = pa.Field(gt=0)
    n_items: int = pa.Field(gt=0)

    class Config:
        unique = ["fit", "policy", "term"]


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

    - ``trend``: the gain's slope on the generator-level delta, tested by a contrast of the arms.
    - ``quality``: gain = a + b chosen + c rejected, in accuracy of the generators. The delta is chosen - rejected, so a third
      slope cannot be told from these two: b + c is 0 where the delta alone counts, c is 0 where the chosen side alone does.
    - ``dimensions``: the gain on the five mean sample-level deltas, with variance inflation factors; and step coherence's slope,
      which the paper found to be the best criterion, minus that of each other dimension.

    A slope's standard error is the larger one of the bootstrap's (items, seeds) and of least squares' own (arms that lie off the
    plane); a fit that has fewer arms than it takes is left out. ``bases`` are the policies' own evaluations.
    """
    accuracy = {side: _accuracies(generator_deltas, f"{side}_mean") for side in ("chosen", "rejected")}
    deltas = {tuple(row[word] for word in ARM): row for row in read_result_csv(whatif, WhatIf).iter_rows(named=True)}
    rows = []
    for fit in settings.fits:
        arms = fit.arms
        gains = Gains(arms, evals, bases, settings.suite, settings.bootstrap)
        sides = {side: [known[arm.chosen, arm.rejected] / PER for arm in arms] for side, known in accuracy.items()}
        common = {
            "fit": fit.fit,
            "policy": arms[0].policy,
            "kind": fit.kind,
            "suite": settings.suite,
            "n_arms": len(arms),
            "n_items": gains.n_items,
        }
        if fit.kind == "trend":
            along = slope([better - worse for better, worse in zip(*sides.values(), strict=True)])
            rows.append(common | {"term": "generator_delta"} | _columns(gains.interval(along)))
            continue
        terms = sides
        if fit.kind == "dimensions":
            by_arm = [deltas[tuple(arm.words.values())] for arm in arms]
            terms = {name: [row[f"delta_{name}"] for row in by_arm] for name in DIMENSIONS}
        if len(arms) < len(terms) + 3:
            continue
        plane = LeastSquares(np.array(list(terms.values())).T, gains.estimates)
        wanted = dict(zip(terms, np.eye(len(terms)), strict=True))
        if fit.kind == "quality":
            wanted["chosen + rejected"] = np.ones(2)
        else:
            paper = "step_coherence"  # the dimension that came out on top there
            others = [name for name in terms if name != paper]
            wanted |= {f"{paper} - {other}": wanted[paper] - wanted[other] for other in others}
        for (name, unit), vif in zip_longest(wanted.items(), plane.inflation):
            interval = plane.widened(gains.interval(plane.contrast(unit)), unit)
            rows.append(common | {"term": name, "vif": vif, "r2": plane.r2} | _columns(interval))
    write_result_table(rows_to_table(rows, Regressions), Regressions, table)


def plot_regressions(table: Path, grids: dict[str, Path], figure: Path, *, settings: SuiteSettings) -> None:
    """Plots what the gain depends on: for each of ``grids`` its gains against the delta, and the slopes of every regression."""
    from prefdelta.measure import plotting

    slopes = read_result_csv(table, Regressions)
    fits = slopes.filter(pl.col("kind") != "trend").partition_by("fit", "policy", maintain_order=True)
    plot, panels = plotting.panels(max(1, len(fits)) * 2, width=4.6, height=3.6)
    for rows, panel, forest in zip(fits, panels[::2], panels[1::2], strict=False):
        fit, policy, kind = rows.select("fit", "policy", "kind").row(0)
        title = f"{fit}, {policy}"
        if kind == "quality":
            gains = read_result_csv(grids[fit], Results).filter(pl.col("task").is_null())
            gains = gains.filter(versus=BASE, suite=settings.suite, decoding="sampled", policy=policy)
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
        f"{row['fit']}, {row['policy']}, {row['term']}: "
        + verdict(row["estimate"], row["ci_low"], row["ci_high"], row["p_value"], 2)
        for row in slopes.iter_rows(named=True)
    ]
    plotting.save(
        plot,
        figure,
        title="What the gain depends on",
        question="What does the gain depend on: the delta, or the chosen side? And the delta in which dimension?",
        answers={"": lines},
        caveat="The delta is chosen minus rejected quality, so of the three only two slopes can be told apart. Where ``chosen "
        "+ rejected`` is 0, the delta alone counts; where ``rejected`` is 0, the chosen side alone. The p-values here are not "
        "corrected for their number; those of the claims are.",
    )


class Gains:
    """Sampled scores on ``suite`` of all cells of some arms, and of the base policy that they started from."""

    def __init__(
        self, arms: list[ArmSettings], evals: dict[Cell, Path], bases: dict[str, Path], suite: str, bootstrap: Bootstrap
    ) -> None:
        files = [[bases[arms[0].policy]], *([evals[cell] for cell in arm.cells] for arm in arms)]
        (self._base, *self._sides), self._sizes = suite_scores(files, suite, bootstrap.ungraded)
        self._weights, self._seed = item_weights(self._sizes, bootstrap.n_resamples, bootstrap.seed), bootstrap.seed
        self.n_items = self._base.shape[1]
        self.estimates: Array = np.array([side.mean() - self._base.mean() for side in self._sides])

    def interval(self, coefficients: Array) -> Interval:
        """Of the sum of ``coefficients`` x the arms' gains."""
        sides = [*self._sides, self._base]
        return contrast([*coefficients, -coefficients.sum()], sides, self._weights, self._seed, self._sizes)


class LeastSquares:
    """``gains`` (n,) on ``terms`` (n, p) with an intercept: each slope is a linear combination of the gains."""

    def __init__(self, terms: Array, gains: Array) -> None:
        design = np.column_stack([np.ones(len(terms)), terms])
        self._solve = np.linalg.pinv(design)
        self._covariance = self._solve @ self._solve.T
        residuals = gains - design @ self._solve @ gains
        self.freedom = len(terms) - design.shape[1]
        self._variance = float(residuals @ residuals) / self.freedom
        total = float(((gains - gains.mean()) ** 2).sum())
        self.r2 = 1 - float(residuals @ residuals) / total if total else None
        spread = terms.std(axis=0)
        constant = spread == 0
        correlations = np.corrcoef((terms - terms.mean(axis=0)) / np.where(constant, 1, spread), rowvar=False)
        # Of a term that does not vary, or is a combination of others, nothing can be told.
        ill = constant.any() or np.linalg.cond(correlations) > 1e12
        self.inflation: list[float | None] = [None] * terms.shape[1] if ill else np.diag(np.linalg.inv(correlations)).tolist()

    def contrast(self, unit: Array) -> Array:
        """The coefficients of the gains in the slopes' combination ``unit``."""
        found: Array = unit @ self._solve[1:]
        return found

    def widened(self, interval: Interval, unit: Array) -> Interval:
        """``interval`` of the combination ``unit``, or one from the residuals, where arms scatter more than seeds and items."""
        error = float(np.sqrt(self._variance * unit @ self._covariance[1:, 1:] @ unit))
        if error <= interval.standard_error:
            return interval
        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * error
        return Interval(interval.estimate, interval.estimate - half, interval.estimate + half, error, float(self.freedom))


def _columns(interval: Interval) -> dict[str, float]:
    return {**vars(interval), "p_value": interval.p_value, "minimum_detectable": interval.minimum_detectable}


def _accuracies(generator_deltas: Path, side: str) -> dict[tuple[str, str], float]:
    deltas = read_result_csv(generator_deltas, GeneratorDeltas).filter(quantity="accuracy")
    return {(row["chosen"], row["rejected"]): row[side] for row in deltas.iter_rows(named=True)}
