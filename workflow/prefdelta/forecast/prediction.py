"""Prediction: how well an arm's gain is predicted from what is known before it is trained, also for other generators."""

from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
from numpy.typing import NDArray

from prefdelta.forecast.predictor import Predictor, features, fit_ridge
from prefdelta.forecast.settings import PredictionSettings
from prefdelta.forecast.whatif import OfArms, WhatIf
from prefdelta.measure.intervals import Array, Interval, item_weights, nested_interval
from prefdelta.measure.scores import suite_scores
from prefdelta.measure.settings import ArmSettings
from prefdelta.run.atomic import write_text
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import ARM, read_result_csv, rows_to_table, write_result_table

Mask = NDArray[np.bool_]
FEWEST = 8  # arms that a fit needs before its predictions are taken for any


class Prediction(Table):
    """How well gains (points) are predicted from what is known before training. Key: split.

    ``r2`` is 1 - squared error / variance of the measured gains of that split's arms: null where they do not vary or are fewer
    than three.
    """

    split: str = pa.Field(unique=True)
    r2: float = pa.Field(nullable=True, le=1)
    spearman: float = pa.Field(nullable=True, ge=-1, le=1)
    n_arms: int = pa.Field(ge=0)
    rmse: float = pa.Field(nullable=True, ge=0)


class PredictedArms(OfArms):
    """Measured gain (points) of every arm, and its predictions by a fit without its pair of generator models.

    ``predicted_new_generators``: without any arm that has either model; ``predicted_in_sample``: with all arms. Null where the
    fit has too few arms, or none of the arm's kind. Key: the six words.
    """

    n_seeds: int = pa.Field(gt=0)
    estimate: float
    ci_low: float
    ci_high: float
    predicted: float = pa.Field(nullable=True)
    predicted_new_generators: float = pa.Field(nullable=True)
    predicted_in_sample: float = pa.Field(nullable=True)


def tabulate_prediction(
    whatif: Path,
    evals: dict[Cell, Path],
    bases: dict[str, Path],
    table: Path,
    arms: Path,
    predictor: Path,
    *,
    settings: PredictionSettings,
) -> None:
    """Writes `Prediction`, `PredictedArms` (to ``arms``) and a `Predictor` (JSON) that is fitted on all arms of ``settings``.

    The gain of an arm is its sampled accuracy over that of its policy in ``bases``. All arms that pair the same two models, in
    either direction and with any method, judge or selection, are held out together (held_out_pairs), or all arms that have either
    of an arm's models (held_out_generators). Predictions by fewer than `FEWEST` arms are missing. By generator_delta alone, or
    the mean alone: what a predictor has to beat.
    """
    rows = {tuple(row[word] for word in ARM): row for row in read_result_csv(whatif, WhatIf).iter_rows(named=True)}
    planned = rows_to_table([rows[tuple(getattr(arm, word) for word in ARM)] for arm in settings.arms], WhatIf)
    measured = _measured(evals, bases, settings)
    gains, errors = np.array([one.estimate for one in measured]), np.array([one.standard_error for one in measured])
    terms = features(planned)
    known: Mask = np.isfinite(terms.to_numpy().sum(axis=1))
    fit = fit_ridge(terms.to_numpy()[known], gains[known])
    sides = [frozenset(settings.models.get(name, name) for name in (arm.chosen, arm.rejected)) for arm in settings.arms]
    same_pair: Mask = np.array([[one == other for other in sides] for one in sides])
    same_generator: Mask = np.array([[bool(one & other) for other in sides] for one in sides])
    pairs, generators = (held_out(terms.to_numpy(), gains, alike) for alike in (same_pair, same_generator))
    predicted = {"predicted": pairs, "predicted_new_generators": generators, "predicted_in_sample": fit(terms.to_numpy())}
    held_out_pairs = _split("held_out_pairs", gains, pairs)
    splits = [
        _split("in_sample", gains, predicted["predicted_in_sample"]),
        held_out_pairs,
        *(_split(f"held_out_pairs, {name}", gains, pairs, among) for name, among in _kinds(planned).items()),
        _split("held_out_generators", gains, generators),
        *(
            _split(f"held_out_pairs, by {name} alone", gains, held_out(simpler, gains, same_pair))
            for name, simpler in (
                ("generator_delta", planned.select("generator_delta").to_numpy()),
                ("the mean", np.zeros((len(gains), 0))),
            )
        ),
        _ceiling(gains, errors),
    ]
    write_result_table(rows_to_table(splits, Prediction), Prediction, table)
    write_result_table(_arm_table(settings.arms, measured, predicted), PredictedArms, arms)
    made = Predictor(
        study=settings.study,
        suite=settings.suite,
        made_by=f"snakemake -- {table}",
        n_arms=int(known.sum()),
        intercept=fit.intercept,
        residual_sd=held_out_pairs["rmse"],
        features=fit.by_name(terms.columns),
    )
    write_text(made.model_dump_json(indent=2) + "\n", predictor)


def _measured(evals: dict[Cell, Path], bases: dict[str, Path], settings: PredictionSettings) -> list[Interval]:
    """The gain of each arm (points)."""
    n_resamples, seed = settings.bootstrap.n_resamples, settings.bootstrap.seed
    policies = list(bases)
    files = [[evals[cell] for cell in arm.cells] for arm in settings.arms]
    sides, sizes = suite_scores([*([bases[policy]] for policy in policies), *files], settings.suite, settings.bootstrap.ungraded)
    untuned = dict(zip(policies, sides, strict=False))
    found = []
    for arm, own in zip(settings.arms, sides[len(policies) :], strict=True):
        base = untuned[arm.policy]
        found.append(nested_interval(own, base, item_weights(sizes, n_resamples, seed), seed, sizes))
    return found


def held_out(terms: Array, gains: Array, alike: Mask) -> Array:
    """Each arm's gain as predicted by a fit on the arms that are not ``alike`` ((arm, arm), itself included).

    NaN where a term is missing, fewer than `FEWEST` arms are left, or the arm differs in a term that does not vary among them.
    """
    predicted = np.full(len(gains), np.nan)
    known: Mask = np.isfinite(terms.sum(axis=1))
    for arm in np.flatnonzero(known):
        training = known & ~alike[arm]
        if training.sum() >= FEWEST:
            predicted[arm] = fit_ridge(terms[training], gains[training])(terms[arm : arm + 1])[0]
    return predicted


def _kinds(planned: pl.DataFrame) -> dict[str, Mask]:
    """Kinds of arms, of which it is told apart how well their gains are predicted."""
    kinds = {
        **{method: planned["method"] == method for method in planned["method"].unique(maintain_order=True)},
        "full sets": planned["selection"] == "full",
        "selections": planned["selection"] != "full",
        # Whoever has a delta below 0 exchanges the sides: these arms are the ones to choose among.
        "delta above 0": planned["delta_overall"] > 0,
    }
    return {name: among.to_numpy() for name, among in kinds.items()}


def _split(name: str, gains: Array, predicted: Array, among: Mask | None = None) -> dict[str, Any]:
    """A row of `Prediction`: the arms of ``among`` (default: all) that have a prediction."""
    everywhere: Mask = np.ones(len(gains), dtype=bool)
    shown = np.flatnonzero(np.isfinite(predicted) & (everywhere if among is None else among))
    truth, guess = gains[shown], predicted[shown]
    error = float(((truth - guess) ** 2).mean()) if len(truth) else None
    row: dict[str, Any] = {"split": name, "n_arms": len(truth), "rmse": None if error is None else error**0.5}
    if error is not None and len(truth) >= 3 and truth.var() > 0:
        row["r2"] = 1 - error / float(truth.var())
        if guess.std() > 0:
            row["spearman"] = pl.select(pl.corr(pl.Series(truth), pl.Series(guess), method="spearman")).item()
    return row


def _ceiling(gains: Array, errors: Array) -> dict[str, Any]:
    """What the true gains would reach as predictions of the measured ones: these have standard errors (items and seeds)."""
    noise = float((errors**2).mean())
    row: dict[str, Any] = {"split": "noise_ceiling", "n_arms": len(gains), "rmse": noise**0.5}
    if len(gains) >= 3 and gains.var() > 0:
        row["r2"] = 1 - noise / float(gains.var())
    return row


def _arm_table(arms: list[ArmSettings], measured: list[Interval], predicted: dict[str, Array]) -> pl.DataFrame:
    """`PredictedArms`, ``predicted`` by column."""
    rows = [
        {**arm.model_dump(include=set(ARM)), "n_seeds": len(arm.cells), **vars(one)}
        for arm, one in zip(arms, measured, strict=True)
    ]
    columns = [pl.Series(name, values).fill_nan(None) for name, values in predicted.items()]
    return rows_to_table(rows, PredictedArms).with_columns(columns)
