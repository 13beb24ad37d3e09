"""Prediction: how well an arm's gain is predicted from what is known before it is trained, also for other generators."""

from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
from numpy.typing import NDArray

from prefdelta.forecast.predictor import Predictor, directions, features, fit_ridge, in_log_odds, in_points
from prefdelta.forecast.regret import Choices
from prefdelta.forecast.settings import PredictionSettings
from prefdelta.forecast.whatif import OfArms, WhatIf, read_whatif
from prefdelta.measure.intervals import Array, Interval, item_weights, nested_interval
from prefdelta.measure.scores import suite_scores
from prefdelta.measure.settings import ArmSettings
from prefdelta.run.atomic import write_text
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import ARM, rows_to_table, write_result_table

Mask = NDArray[np.bool_]
REGRETS = ("regret", "regret_low", "regret_high", "regret_at_random", "regret_by_generator_delta")
NO_CHOICE: dict[str, Any] = {"n_choices": 0, **dict.fromkeys(REGRETS)}
FEWEST = 8  # arms that a fit needs before its predictions are taken for any


class Prediction(Table):
    """How well gains (points) are predicted from what is known before training. Key: split.

    ``r2`` is 1 - squared error / variance of the measured gains of that split's arms: null where they do not vary or are fewer
    than three. ``regret`` (points, with its 95 % interval): the gain of the best arm minus that of the arm with the largest
    prediction, mean over the ``n_choices`` sets of at least two arms of one policy and method, since these are what one chooses
    among; beside it that of choosing at random, and by the largest generator-level delta in accuracy (`regret.Choices`).
    ``predictor``: of the split ``frozen``, what had predicted the gains in `WhatIf`.
    """

    split: str = pa.Field(unique=True)
    r2: float = pa.Field(nullable=True, le=1)
    spearman: float = pa.Field(nullable=True, ge=-1, le=1)
    n_arms: int = pa.Field(ge=0)
    rmse: float = pa.Field(nullable=True, ge=0)
    n_choices: int = pa.Field(ge=0)
    regret: float = pa.Field(nullable=True)
    regret_low: float = pa.Field(nullable=True)
    regret_high: float = pa.Field(nullable=True)
    regret_at_random: float = pa.Field(nullable=True)
    regret_by_generator_delta: float = pa.Field(nullable=True)
    predictor: str = pa.Field(nullable=True)


class PredictedArms(OfArms):
    """Measured gain (points) of every arm, and its predictions by a fit without its pair of generator models.

    ``predicted_new_generators``: without any arm that has either model; ``predicted_in_sample``: with all arms;
    ``predicted_frozen``: by the predictor of another study, as `WhatIf` had it before any training. Null where the fit has too
    few arms, or none of the arm's kind. Key: the six words.
    """

    n_seeds: int = pa.Field(gt=0)
    estimate: float
    ci_low: float
    ci_high: float
    predicted: float = pa.Field(nullable=True)
    predicted_new_generators: float = pa.Field(nullable=True)
    predicted_in_sample: float = pa.Field(nullable=True)
    predicted_frozen: float = pa.Field(nullable=True)


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
    the mean alone: what a predictor has to beat. The split frozen, where the study has a predictor, compares what ``whatif``
    predicted by it with what came out: nothing that this study trained can have reached it. Fits are in log-odds
    (`predictor.log_odds`); everything that is written, but the `Predictor`, is in points.
    """
    rows = {tuple(row[word] for word in ARM): row for row in read_whatif(whatif).iter_rows(named=True)}
    planned = rows_to_table([rows[tuple(getattr(arm, word) for word in ARM)] for arm in settings.arms], WhatIf)
    measured, choices = _measured(evals, bases, settings)
    gains, errors = np.array([one.estimate for one in measured]), np.array([one.standard_error for one in measured])
    base = planned["base_accuracy"].to_numpy()
    table_of_terms = features(planned)
    terms, wanted = table_of_terms.to_numpy(), in_log_odds(base, gains)
    known: Mask = np.isfinite(terms.sum(axis=1) + wanted)
    fit = fit_ridge(terms[known], wanted[known])
    sides = [frozenset(settings.models.get(name, name) for name in (arm.chosen, arm.rejected)) for arm in settings.arms]
    same_pair: Mask = np.array([[one == other for other in sides] for one in sides])
    same_generator: Mask = np.array([[bool(one & other) for other in sides] for one in sides])
    pairs = held_out(terms, wanted, same_pair)
    predicted = {
        "predicted": in_points(base, pairs),
        "predicted_new_generators": in_points(base, held_out(terms, wanted, same_generator)),
        "predicted_in_sample": in_points(base, fit(terms)),
        "predicted_frozen": planned["predicted_gain"].to_numpy(),
    }
    deltas = (planned["generator_delta"] * directions(planned)).to_numpy()

    def split(name: str, guess: Array, among: Mask | None = None) -> dict[str, Any]:
        shown = np.flatnonzero(np.isfinite(guess) & (np.full(len(gains), True) if among is None else among))
        return {"split": name, **_fit_of(gains[shown], guess[shown]), **_regrets(choices, shown, guess, deltas)}

    by_delta, by_mean = planned.select("generator_delta").to_numpy(), np.zeros((len(gains), 0))
    splits = [
        split("in_sample", predicted["predicted_in_sample"]),
        split("held_out_pairs", predicted["predicted"]),
        *(split(f"held_out_pairs, {name}", predicted["predicted"], among) for name, among in _kinds(planned).items()),
        split("held_out_generators", predicted["predicted_new_generators"]),
        split("held_out_pairs, by generator_delta alone", in_points(base, held_out(by_delta, wanted, same_pair))),
        split("held_out_pairs, by the mean alone", in_points(base, held_out(by_mean, wanted, same_pair))) | NO_CHOICE,
        _ceiling(gains, errors),
    ]
    by = planned["predictor"].drop_nulls().unique().to_list()
    if by and not by[0].startswith(f"{settings.study}, "):  # a copy of its own predictor has seen what it predicts
        splits.insert(0, split("frozen", predicted["predicted_frozen"]) | {"predictor": by[0]})
    write_result_table(rows_to_table(splits, Prediction), Prediction, table)
    write_result_table(_arm_table(settings.arms, measured, predicted), PredictedArms, arms)
    made = Predictor(
        study=settings.study,
        suite=settings.suite,
        made_by=f"snakemake -- {table}",
        n_arms=int(known.sum()),
        intercept=fit.intercept,
        held_out_error=_rmse(wanted - pairs),
        features=fit.by_name(table_of_terms.columns),
    )
    write_text(made.model_dump_json(indent=2) + "\n", predictor)


def _measured(evals: dict[Cell, Path], bases: dict[str, Path], settings: PredictionSettings) -> tuple[list[Interval], Choices]:
    """The gain of each arm (points), and the arms as choices."""
    files = [[evals[cell] for cell in arm.cells] for arm in settings.arms]
    scores, sizes = suite_scores([*([file] for file in bases.values()), *files], settings.suite, settings.bootstrap.ungraded)
    untuned, sides = dict(zip(bases, scores, strict=False)), scores[len(bases) :]
    seed = settings.bootstrap.seed
    weights = item_weights(sizes, settings.bootstrap.n_resamples, seed)
    gains = [
        nested_interval(own, untuned[arm.policy], weights, seed, sizes) for arm, own in zip(settings.arms, sides, strict=True)
    ]
    return gains, Choices([f"{arm.policy}, {arm.method}" for arm in settings.arms], sides, weights, sizes, seed)


def held_out(terms: Array, gains: Array, alike: Mask) -> Array:
    """Each arm's gain as predicted by a fit on the arms that are not ``alike`` ((arm, arm), itself included).

    NaN where a term or the gain is missing, fewer than `FEWEST` arms are left, or the arm differs in a term that does not vary
    among them.
    """
    predicted = np.full(len(gains), np.nan)
    known: Mask = np.isfinite(terms.sum(axis=1) + gains)
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


def _rmse(errors: Array) -> float | None:
    """Root mean square of the ``errors`` that are known; None where none is."""
    known = errors[np.isfinite(errors)]
    return float((known**2).mean()) ** 0.5 if len(known) else None


def _fit_of(truth: Array, guess: Array) -> dict[str, Any]:
    """Columns of `Prediction`: how well ``guess`` fits ``truth``."""
    row: dict[str, Any] = {"n_arms": len(truth), "rmse": _rmse(truth - guess)}
    if len(truth) >= 3 and truth.var() > 0:
        row["r2"] = 1 - row["rmse"] ** 2 / float(truth.var())
        if guess.std() > 0:
            row["spearman"] = pl.select(pl.corr(pl.Series(truth), pl.Series(guess), method="spearman")).item()
    return row


def _regrets(choices: Choices, shown: NDArray[np.intp], guess: Array, deltas: Array) -> dict[str, Any]:
    """Columns of `Prediction`: what it costs to choose among the arms ``shown`` by ``guess``, at random, or by ``deltas``."""
    sets = choices.among(shown.tolist())
    if not sets:
        return NO_CHOICE
    regret = choices.regret(sets, guess)
    at_random = choices.regret(sets, np.zeros(len(guess))).estimate
    by_delta = choices.regret(sets, deltas).estimate if np.isfinite(deltas).all() else None
    found = (regret.estimate, regret.ci_low, regret.ci_high, at_random, by_delta)
    return {"n_choices": len(sets), **dict(zip(REGRETS, found, strict=True))}


def _ceiling(gains: Array, errors: Array) -> dict[str, Any]:
    """What the true gains would reach as predictions of the measured ones: these have standard errors (items and seeds)."""
    noise = float((errors**2).mean())
    row: dict[str, Any] = {"split": "noise_ceiling", "n_arms": len(gains), "rmse": noise**0.5, **NO_CHOICE}
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


def prediction_lines(splits: pl.DataFrame) -> list[str]:
    """A line for each of ``splits`` (`Prediction`)."""
    lines = []
    for row in splits.iter_rows(named=True):
        r2, rank, rmse = ("unknown" if row[name] is None else f"{row[name]:.2f}" for name in ("r2", "spearman", "rmse"))
        line = f"{row['split']}: R² {r2}, rank correlation {rank}, root mean square error {rmse} points, {row['n_arms']} arms"
        if row["regret"] is not None:
            by_delta = row["regret_by_generator_delta"]
            line += (
                f"; the arm that it puts first is {row['regret']:.1f} [{row['regret_low']:.1f}, {row['regret_high']:.1f}] points "
                f"below the best (at random {row['regret_at_random']:.1f}, by generator-level delta alone "
                f"{'unknown' if by_delta is None else format(by_delta, '.1f')})"
            )
        lines.append(line + (f"; predicted by {row['predictor']}" if row["predictor"] else ""))
    return lines
