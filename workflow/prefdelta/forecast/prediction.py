"""Prediction of an arm's gain from what is known before it is trained, and how well that works on other generators."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import ndtri

from prefdelta.findings.experiment import suite_scores
from prefdelta.findings.intervals import LEVEL, Array, Interval, item_weights, nested_interval
from prefdelta.run.atomic import write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study import paths
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.tables.findings import PredictedArms, Prediction, WhatIf
from prefdelta.tables.io import ARM, read_result_csv, rows_to_table, write_result_table

Mask = NDArray[np.bool_]
HALF = 0.5  # levels of delta at which half of the most that a delta can do is reached
RIDGE = 1.0  # in standardised features: a prior as heavy as one arm
FEWEST = 8  # arms that a fit needs before its predictions are taken for any


class PredictorError(PrefdeltaError):
    """A predictor can't be read: the message names the file and what is wrong with it."""


class Feature(BaseModel):
    """Of the arms of the fit: ``mean`` and ``sd`` (0: it did not vary). ``coefficient``: points for one sd."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    sd: float
    coefficient: float


class Predictor(BaseModel):
    """A fitted predictor. ``residual_sd``: of its predictions of held-out generator pairs (points); null where unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    suite: str
    made_by: str
    n_arms: int
    intercept: float
    residual_sd: float | None
    features: dict[str, Feature]


def saturating(delta: pl.Expr) -> pl.Expr:
    """-1 to 1, half of which is reached at `HALF`: twice the delta does not do twice as much."""
    return delta / (delta.abs() + HALF)


def features(arms: pl.DataFrame) -> pl.DataFrame:
    """What gains are predicted from: a column each, for ``arms`` (`WhatIf`).

    Where training reads both sides: ``delta``, of the pairs as they were judged, and ``generator_delta``, of all traces of the
    two generators, which even pairs of small or negative delta carry along in how they are written (exchanged where the selection
    exchanges the sides). Where it reads the chosen side alone (SFT): ``chosen_over_policy``, share of right answers minus the
    policy's accuracy, since what imitates becomes no better than what it imitates.
    """
    contrasts = pl.col("trainer") != "sft"
    kinds = [parse(draw_for_seed(name, 0)).kind for name in arms["selection"]]
    direction = pl.Series([-1.0 if kind == "flipped" else 1.0 for kind in kinds], dtype=pl.Float64)
    return arms.select(
        delta=pl.when(contrasts).then(saturating(pl.col("delta_overall"))).otherwise(0.0),
        generator_delta=pl.when(contrasts).then(saturating(pl.col("generator_delta_overall") * direction)).otherwise(0.0),
        chosen_over_policy=pl.when(contrasts).then(0.0).otherwise(pl.col("chosen_correct") - pl.col("base_accuracy") / 100),
    )


@dataclass(frozen=True)
class Fit:
    """A linear fit of gains on terms, each in units of its standard deviation among the arms of the fit."""

    means: Array
    sds: Array
    coefficients: Array
    intercept: float

    def __call__(self, terms: Array) -> Array:
        """Predicted gains of ``terms`` (n, p); NaN where a term differs that did not vary among the arms of the fit."""
        unseen = ((self.sds == 0) & (terms != self.means)).any(axis=1)
        return np.where(unseen, np.nan, self.intercept + _scaled(terms, self.means, self.sds) @ self.coefficients)


def fit_ridge(terms: Array, gains: Array) -> Fit:
    """Ridge regression of ``gains`` (n,) on ``terms`` (n, p)."""
    means, sds = terms.mean(axis=0), terms.std(axis=0)
    sds = np.where(sds > 1e-12, sds, 0.0)
    scaled, intercept = _scaled(terms, means, sds), float(gains.mean())
    coefficients = np.linalg.solve(scaled.T @ scaled + RIDGE * np.eye(terms.shape[1]), scaled.T @ (gains - intercept))
    return Fit(means, sds, coefficients.astype(np.float64), intercept)


def _scaled(terms: Array, means: Array, sds: Array) -> Array:
    scaled: Array = (terms - means) / np.where(sds > 0, sds, 1.0)
    return scaled


def read_predictor(predictor: Path | str) -> Predictor:
    """Reads a predictor's JSON; `paths.SHIPPED` names the one that comes with the package. Raises PredictorError."""
    path = paths.predictor_file(predictor)
    try:
        return Predictor.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PredictorError(
            f"predictor: {path} can't be read ({error.strerror}); give a predictor.json, or {paths.SHIPPED}"
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise PredictorError(f"{path} is not a predictor: {problems}. The table `prediction` of a study makes one.") from None


def predict(predictor: Path | str, arms: pl.DataFrame) -> pl.DataFrame:
    """Columns ``predicted_gain``, ``predicted_low`` and ``predicted_high`` (points) for ``arms`` (`WhatIf`), in their order.

    The interval (95 %) is that of generator pairs which the predictor was not fitted on. Null where a feature is unknown, or did
    not vary in the fit and differs here. Raises PredictorError.
    """
    made = read_predictor(predictor)
    table = features(arms)
    if set(table.columns) != set(made.features):
        raise PredictorError(
            f"{paths.predictor_file(predictor)} has features {', '.join(made.features)}, not {', '.join(table.columns)}"
        )
    by_name = [made.features[name] for name in table.columns]
    means, sds, coefficients = (np.array([getattr(one, key) for one in by_name]) for key in ("mean", "sd", "coefficient"))
    predicted = Fit(means, sds, coefficients, made.intercept)(table.to_numpy())
    half = np.nan if made.residual_sd is None else made.residual_sd * float(ndtri((1 + LEVEL) / 2))
    columns = {"predicted_gain": predicted, "predicted_low": predicted - half, "predicted_high": predicted + half}
    return pl.DataFrame(columns).with_columns(pl.all().fill_nan(None))


def tabulate_prediction(
    whatif: Path | str,
    output: Path | str,
    arms_output: Path | str,
    predictor: Path | str,
    *,
    study: str,
    suite: str,
    arms: list[dict[str, Any]],
    models: dict[str, str],
    n_resamples: int,
    seed: int,
) -> None:
    """Writes `Prediction`, `PredictedArms` and a `Predictor` (JSON) that is fitted on all ``arms`` (words and cells).

    The gain of an arm is its sampled accuracy on ``suite`` over the base policy. ``models`` names the model of a generator, where
    it is one of the study's. All arms that pair the same two models, in either direction and with any method, judge or selection,
    are held out together (held_out_pairs), or all arms that have either of an arm's models (held_out_generators). Predictions by
    fewer than `FEWEST` arms are missing. By generator_delta alone, or the mean alone: what a predictor has to beat.
    """
    known = {tuple(row[word] for word in ARM): row for row in read_result_csv(whatif, WhatIf).iter_rows(named=True)}
    table = rows_to_table([known[tuple(arm[word] for word in ARM)] for arm in arms], WhatIf)
    policies = dict.fromkeys(arm["policy"] for arm in arms)
    bases = {policy: suite_scores([paths.EVAL_BASE.format(study=study, model=policy)], suite) for policy in policies}

    def gain(arm: dict[str, Any]) -> Interval:
        base, sizes = bases[arm["policy"]]
        own, _ = suite_scores([paths.EVAL.format(**cell) for cell in arm["cells"]], suite)
        return nested_interval(own, base, item_weights(sizes, n_resamples, seed), seed, sizes)

    measured = [gain(arm) for arm in arms]
    gains, errors = np.array([one.estimate for one in measured]), np.array([one.standard_error for one in measured])
    terms = features(table).to_numpy()
    sides = [frozenset(models.get(arm[side], arm[side]) for side in ("chosen", "rejected")) for arm in arms]

    def same_pair(arm: int) -> Mask:
        return np.array([other == sides[arm] for other in sides])

    def same_generator(arm: int) -> Mask:
        return np.array([bool(other & sides[arm]) for other in sides])

    pairs = held_out(terms, gains, same_pair)
    generators = held_out(terms, gains, same_generator)
    fit = fit_ridge(*_whole(terms, gains))
    in_sample = fit(terms)
    alone = held_out(table.select("generator_delta").to_numpy(), gains, same_pair)
    mean = held_out(np.zeros((len(arms), 0)), gains, same_pair)
    rows = [
        _split("in_sample", gains, in_sample),
        _split("held_out_pairs", gains, pairs),
        *(
            _split(f"held_out_pairs, {method}", gains, pairs, (table["method"] == method).to_numpy())
            for method in table["method"].unique(maintain_order=True)
        ),
        _split("held_out_pairs, full sets", gains, pairs, (table["selection"] == "full").to_numpy()),
        _split("held_out_pairs, selections", gains, pairs, (table["selection"] != "full").to_numpy()),
        # Whoever has a delta below 0 exchanges the sides: these arms are the ones to choose among.
        _split("held_out_pairs, delta above 0", gains, pairs, (table["delta_overall"] > 0).to_numpy()),
        _split("held_out_generators", gains, generators),
        _split("held_out_pairs, by generator_delta alone", gains, alone),
        _split("held_out_pairs, by the mean alone", gains, mean),
        _ceiling(gains, errors),
    ]
    write_result_table(rows_to_table(rows, Prediction), Prediction, output)
    by_arm = {"predicted": pairs, "predicted_new_generators": generators, "predicted_in_sample": in_sample}
    columns = {name: [None if np.isnan(value) else value for value in values.tolist()] for name, values in by_arm.items()}
    arm_rows = [
        {**{word: arm[word] for word in ARM}, "n_seeds": len(arm["cells"]), **vars(one)}
        | {name: values[place] for name, values in columns.items()}
        for place, (arm, one) in enumerate(zip(arms, measured, strict=True))
    ]
    write_result_table(rows_to_table(arm_rows, PredictedArms), PredictedArms, arms_output)
    numbers = zip(fit.means.tolist(), fit.sds.tolist(), fit.coefficients.tolist(), strict=True)
    by_feature = {
        name: Feature(mean=mean, sd=sd, coefficient=coefficient)
        for name, (mean, sd, coefficient) in zip(features(table).columns, numbers, strict=True)
    }
    made = Predictor(
        study=study,
        suite=suite,
        made_by=f"snakemake -- {paths.TABLE.format(study=study, experiment='prediction')}",
        n_arms=len(_whole(terms, gains)[1]),
        intercept=fit.intercept,
        residual_sd=rows[1]["rmse"],
        features=by_feature,
    )
    write_text(made.model_dump_json(indent=2) + "\n", predictor)


def held_out(terms: Array, gains: Array, alike: Callable[[int], Mask]) -> Array:
    """Each arm's gain as predicted by a fit on the arms that are not ``alike`` (a mask, itself included).

    NaN where a term is missing, fewer than `FEWEST` arms are left, or the arm differs in a term that does not vary among them.
    """
    predicted = np.full(len(gains), np.nan)
    whole: Mask = np.isfinite(terms.sum(axis=1))
    for arm in range(len(gains)):
        training = whole & ~alike(arm)
        if whole[arm] and training.sum() >= FEWEST:
            predicted[arm] = fit_ridge(terms[training], gains[training])(terms[arm : arm + 1])[0]
    return predicted


def _whole(terms: Array, gains: Array) -> tuple[Array, Array]:
    """The arms of which all terms are known."""
    whole: Mask = np.isfinite(terms.sum(axis=1))
    return terms[whole], gains[whole]


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
