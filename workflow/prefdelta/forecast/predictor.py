"""The predictor of an arm's gain from what is known before it is trained: its fit, its file, and what it predicts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError
from scipy.special import ndtri

from prefdelta.measure.intervals import LEVEL, Array
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.selections import draw_for_seed, parse
from prefdelta.study.strict import Strict

HALF = 0.5  # levels of delta at which half of the most that a delta can do is reached
RIDGE = 1.0  # in standardised features: a prior as heavy as one arm


class PredictorError(PrefdeltaError):
    """A predictor can't be read: the message names the file and what is wrong with it."""


class Feature(Strict):
    """Of the arms of the fit: ``mean`` and ``sd`` (0: it did not vary). ``coefficient``: points for one sd."""

    mean: float
    sd: float
    coefficient: float


class Predictor(Strict):
    """A fitted predictor. ``residual_sd``: of its predictions of held-out generator pairs (points); null where unknown."""

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
            f"predictor: {predictor} can't be read ({error.strerror}); give a predictor.json, or name the one that is shipped"
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise PredictorError(
            f"{predictor} is not a predictor: {problems}. The table `prediction` of a study makes one."
        ) from None


def predict(predictor: Path, arms: pl.DataFrame) -> pl.DataFrame:
    """Columns ``predicted_gain``, ``predicted_low`` and ``predicted_high`` (points) for ``arms`` (`WhatIf`), in their order.

    The interval (95 %) is that of generator pairs which the predictor was not fitted on. Null where a feature is unknown, or did
    not vary in the fit and differs here. Raises PredictorError.
    """
    made = read_predictor(predictor)
    table = features(arms)
    if set(table.columns) != set(made.features):
        raise PredictorError(f"{predictor} has features {', '.join(made.features)}, not {', '.join(table.columns)}")
    by_name = [made.features[name] for name in table.columns]
    means, sds, coefficients = (np.array([getattr(one, key) for one in by_name]) for key in ("mean", "sd", "coefficient"))
    predicted = Fit(means, sds, coefficients, made.intercept)(table.to_numpy())
    half = np.nan if made.residual_sd is None else made.residual_sd * float(ndtri((1 + LEVEL) / 2))
    columns = {"predicted_gain": predicted, "predicted_low": predicted - half, "predicted_high": predicted + half}
    return pl.DataFrame(columns).with_columns(pl.all().fill_nan(None))
