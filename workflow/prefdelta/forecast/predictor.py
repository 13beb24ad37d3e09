"""The predictor of an arm's gain from what is known before it is trained: its fit, its file, and what it predicts.

It works in log-odds of accuracy, so that what there is left to gain counts: from 95 points none gains another ten.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError
from scipy.special import expit, logit, ndtri

from prefdelta.measure.intervals import LEVEL, Array
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.study.strict import Strict

HALF = 0.5  # levels of delta at which half of the most that a delta can do is reached
RIDGE = 1.0  # in standardised features: a prior as heavy as one arm
SHRINKAGE = 0.5  # right and wrong answers that are added to each hundred


class PredictorError(PrefdeltaError):
    """A predictor can't be read: the message names the file and what is wrong with it."""


class Feature(Strict):
    """Of the arms of the fit: ``mean`` and ``sd`` (0: it did not vary). ``coefficient``: log-odds for one sd."""

    mean: float
    sd: float
    coefficient: float


class Predictor(Strict):
    """A fitted predictor of gains in log-odds. ``held_out_error``: root mean square of its errors (log-odds) on generator pairs
    that were held out; null where unknown.
    """

    study: str
    suite: str
    made_by: str
    n_arms: int
    intercept: float
    held_out_error: float | None
    features: dict[str, Feature]


def log_odds(accuracy: Array) -> Array:
    """Log-odds of ``accuracy`` (points), with half a right and half a wrong answer added to each hundred.

    So it is finite at 0 and 100 points (-5.3 and 5.3), and larger suites do not reach farther: the empirical logistic transform
    (Cox and Snell 1989, Analysis of Binary Data, section 2.1) as if of a hundred answers.
    """
    found: Array = logit((accuracy + SHRINKAGE) / (100 + 2 * SHRINKAGE))
    return found


def in_log_odds(base: Array, gain: Array) -> Array:
    """What a ``gain`` over ``base`` (both in points) is in log-odds."""
    return log_odds(np.clip(base + gain, 0, 100)) - log_odds(base)


def in_points(base: Array, gain: Array) -> Array:
    """What a ``gain`` in log-odds over ``base`` (points) is in points: the inverse of `in_log_odds`."""
    reached = (100 + 2 * SHRINKAGE) * expit(log_odds(base) + gain) - SHRINKAGE
    points: Array = np.clip(reached, 0, 100) - base
    return points


def saturating(delta: pl.Expr) -> pl.Expr:
    """-1 to 1, half of which is reached at `HALF`: twice the delta does not do twice as much."""
    return delta / (delta.abs() + HALF)


def directions(arms: pl.DataFrame) -> pl.Series:
    """-1 for ``arms`` whose selection exchanges the sides, else 1."""
    kinds = [parse(draw_for_seed(name, 0)).kind for name in arms["selection"]]
    return pl.Series([-1.0 if kind == "flipped" else 1.0 for kind in kinds], dtype=pl.Float64)


def features(arms: pl.DataFrame) -> pl.DataFrame:
    """What gains are predicted from: a column each, for ``arms`` (`WhatIf`).

    Where training reads both sides: ``delta``, of the pairs as they were judged, and ``generator_delta``, of all traces of the
    two generators, which even pairs of small or negative delta carry along in how they are written (exchanged where the selection
    exchanges the sides). Where it reads the chosen side alone (SFT): ``chosen_over_policy``, log-odds of right answers minus
    those of the policy's, since what imitates becomes no better than what it imitates.
    """
    contrasts = pl.col("trainer") != "sft"
    right, base = arms["chosen_correct"].to_numpy(), arms["base_accuracy"].to_numpy()
    ahead = pl.Series(log_odds(100 * right) - log_odds(base))
    return arms.select(
        delta=pl.when(contrasts).then(saturating(pl.col("delta_overall"))).otherwise(0.0),
        generator_delta=pl.when(contrasts).then(saturating(pl.col("generator_delta_overall") * directions(arms))).otherwise(0.0),
        chosen_over_policy=pl.when(contrasts).then(0.0).otherwise(ahead),
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

    def by_name(self, names: list[str]) -> dict[str, Feature]:
        """Its terms as they are stored."""
        numbers = zip(self.means.tolist(), self.sds.tolist(), self.coefficients.tolist(), strict=True)
        return {
            name: Feature(mean=mean, sd=sd, coefficient=slope) for name, (mean, sd, slope) in zip(names, numbers, strict=True)
        }


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


def read_predictor(predictor: Path) -> Predictor:
    """Reads a predictor's JSON. Raises PredictorError."""
    try:
        return Predictor.model_validate_json(predictor.read_text(encoding="utf-8"))
    except OSError as error:
        raise PredictorError(
            f"predictor: {predictor} can't be read ({error.strerror}); give the `tables/predictor.json` of another study"
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise PredictorError(
            f"{predictor} is not a predictor: {problems}. The table `prediction` of a study makes one."
        ) from None


def predict(predictor: Path, arms: pl.DataFrame) -> pl.DataFrame:
    """Columns ``predicted_gain``, ``predicted_low`` and ``predicted_high`` (points) for ``arms`` (`WhatIf`), in their order, and
    ``predictor``: its study, suite and the SHA-256 of its file.

    The interval (95 %) is that of generator pairs which the predictor was not fitted on. Null where a feature or the policy's
    accuracy is unknown, or a feature did not vary in the fit and differs here. Raises PredictorError.
    """
    made = read_predictor(predictor)
    table = features(arms)
    if set(table.columns) != set(made.features):
        raise PredictorError(f"{predictor} has features {', '.join(made.features)}, not {', '.join(table.columns)}")
    by_name = [made.features[name] for name in table.columns]
    means, sds, coefficients = (np.array([getattr(one, key) for one in by_name]) for key in ("mean", "sd", "coefficient"))
    predicted = Fit(means, sds, coefficients, made.intercept)(table.to_numpy())
    base = arms["base_accuracy"].to_numpy()
    half = np.nan if made.held_out_error is None else made.held_out_error * float(ndtri((1 + LEVEL) / 2))
    shifts = {"predicted_gain": 0.0, "predicted_low": -half, "predicted_high": half}
    columns = {name: in_points(base, predicted + shift) for name, shift in shifts.items()}
    digest = hashlib.sha256(predictor.read_bytes()).hexdigest()
    named = pl.lit(f"{made.study}, {made.suite}, sha256 {digest}").alias("predictor")
    return pl.DataFrame(columns).with_columns(pl.all().fill_nan(None)).with_columns(named)
