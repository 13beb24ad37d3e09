"""What an arm's gain depends on: a ladder's trend, chosen against rejected quality, and the deltas in the five dimensions."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from prefdelta.findings.experiment import suite_scores
from prefdelta.findings.intervals import LEVEL, Array, Interval, contrast, item_weights, slope
from prefdelta.study import paths
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.tables.findings import GeneratorDeltas, Regressions, WhatIf
from prefdelta.tables.io import ARM, read_result_csv, rows_to_table, write_result_table

PER = 10.0  # points of accuracy that a generator's slope is given for


def tabulate_regressions(
    generator_deltas: Path | str,
    whatif: Path | str,
    output: Path | str,
    *,
    study: str,
    suite: str,
    models: list[dict[str, Any]],
    n_resamples: int,
    seed: int,
) -> None:
    """Writes the `Regressions`: of each of ``models``, how the gain in sampled accuracy on ``suite`` depends on its terms.

    A model has a ``model`` (its name), a ``kind`` and ``arms`` (words and cells):

    - ``trend``: the gain's slope on the generator-level delta, tested by a contrast of the arms.
    - ``quality``: gain = a + b chosen + c rejected, in accuracy of the generators. The delta is chosen - rejected, so a third
      slope cannot be told from these two: b + c is 0 where the delta alone counts, c is 0 where the chosen side alone does.
    - ``dimensions``: the gain on the five mean sample-level deltas, with variance inflation factors; and step coherence's slope,
      which the paper found to be the best criterion, minus that of each other dimension.

    A regression's standard error is the larger one of the bootstrap's (items, seeds) and of least squares' own (arms that lie off
    the plane); a model with fewer arms than it takes is left out.
    """
    accuracy = {side: _accuracies(generator_deltas, f"{side}_mean") for side in ("chosen", "rejected")}
    deltas = {tuple(row[word] for word in ARM): row for row in read_result_csv(whatif, WhatIf).iter_rows(named=True)}
    rows = []
    for model in models:
        arms = model["arms"]
        gains = Gains(study, suite, arms, n_resamples, seed)
        sides = {side: [known[arm["chosen"], arm["rejected"]] / PER for arm in arms] for side, known in accuracy.items()}
        common = {"model": model["model"], "kind": model["kind"], "suite": suite, "n_arms": len(arms), "n_items": gains.n_items}
        if model["kind"] == "trend":
            along = slope([better - worse for better, worse in zip(*sides.values(), strict=True)])
            rows.append(common | {"term": "generator_delta"} | _columns(gains.interval(along)))
            continue
        terms = sides
        if model["kind"] == "dimensions":
            by_arm = [deltas[tuple(arm[word] for word in ARM)] for arm in arms]
            terms = {name: [row[f"delta_{name}"] for row in by_arm] for name in DIMENSIONS}
        if len(arms) < len(terms) + 3:
            continue
        fit = LeastSquares(np.array(list(terms.values())).T, gains.estimates)
        wanted = dict(zip(terms, np.eye(len(terms)), strict=True))
        if model["kind"] == "quality":
            wanted["chosen + rejected"] = np.ones(2)
        else:
            paper = "step_coherence"  # the dimension that came out on top there
            others = [name for name in terms if name != paper]
            wanted |= {f"{paper} - {other}": wanted[paper] - wanted[other] for other in others}
        for (name, unit), vif in zip_longest(wanted.items(), fit.inflation):
            interval = fit.widened(gains.interval(fit.contrast(unit)), unit)
            rows.append(common | {"term": name, "vif": vif, "r2": fit.r2} | _columns(interval))
    write_result_table(rows_to_table(rows, Regressions), Regressions, output)


class Gains:
    """Sampled scores on ``suite`` of all cells of some arms, and of the base policy that they started from."""

    def __init__(self, study: str, suite: str, arms: list[dict[str, Any]], n_resamples: int, seed: int) -> None:
        self._sides = [suite_scores([paths.EVAL.format(**cell) for cell in arm["cells"]], suite)[0] for arm in arms]
        self._base, self._sizes = suite_scores([paths.EVAL_BASE.format(study=study, model=arms[0]["policy"])], suite)
        self._weights, self._seed = item_weights(self._sizes, n_resamples, seed), seed
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


def _accuracies(generator_deltas: Path | str, side: str) -> dict[tuple[str, str], float]:
    deltas = read_result_csv(generator_deltas, GeneratorDeltas).filter(quantity="accuracy")
    return {(row["chosen"], row["rejected"]): row[side] for row in deltas.iter_rows(named=True)}
