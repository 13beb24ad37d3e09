"""Two deltas: what generator-level and sample-level delta buy, each at a fixed value of the other, in crossed experiments."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
from scipy.special import stdtrit

from prefdelta.answers.settings import TwoDeltasSettings
from prefdelta.audit.delta_correction import DeltaCorrection
from prefdelta.findings.experiment import Results
from prefdelta.measure.intervals import LEVEL, NOTHING, Array, Interval, contrast, item_weights
from prefdelta.measure.scores import item_scores, stack
from prefdelta.measure.settings import ComparedArm
from prefdelta.measure.verdict import decided, verdict
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table

PER = 10.0  # points of generator-level delta that a slope is given for, and of correctness
TERMS = {  # term -> what it is, in words
    "generator_delta": "The gain, for each 10 points of generator-level delta at a fixed sample-level delta",
    "sample_delta": "The gain, for each level of sample-level delta between fixed generators",
    "interaction": "What a level of sample-level delta adds to the gain, for each 10 points of generator-level delta",
}
OTHERS = {  # other sample-level deltas than judged ones -> term -> what a slope by them is, in words
    "corrected": dict.fromkeys(TERMS, "By deltas without the judge's noise"),
    "graded": {
        "generator_delta": "Between pairs that differ equally in correctness",
        "sample_delta": "By correctness, for each 10 points more pairs of which the chosen answer alone is right",
    },
}


class TwoDeltas(Table):
    """What the gain (points of accuracy) depends on in a crossed experiment. Key: the words of its arms, decoding, deltas, term.

    ``term``: ``generator_delta`` (for 10 points of it), ``sample_delta`` (for a level of it), or their ``interaction`` (how much
    more a level adds for each 10 points). ``deltas``: sample-level deltas as ``judged``; or ``corrected``, without the judge's
    noise (`audit.delta_correction`): where pairs are selected by a judged delta, more of it is noise between generators that
    differ less; or ``graded``, 10 points of `Results.correct_delta` each: pairs of equal judged delta may differ in that. What is
    `decided` is corrected for the three terms. ``n_generator_pairs`` and ``n_selections`` are the sides of the crossing.
    """

    experiment: str
    policy: str
    method: str
    judge: str
    suite: str
    decoding: str
    deltas: str = pa.Field(isin=["judged", *OTHERS])
    term: str = pa.Field(isin=list(TERMS))
    estimate: float
    ci_low: float
    ci_high: float
    standard_error: float = pa.Field(ge=0)
    freedom: float = pa.Field(gt=0)
    adjusted_low: float
    adjusted_high: float
    p_value: float = pa.Field(ge=0, le=1)
    p_holm: float = pa.Field(ge=0, le=1)
    minimum_detectable: float = pa.Field(ge=0)
    n_generator_pairs: int = pa.Field(ge=2)
    n_selections: int = pa.Field(ge=2)
    n_items: int = pa.Field(gt=0)
    n_seeds: int = pa.Field(gt=0)

    class Config:
        unique = ["experiment", "policy", "method", "judge", "decoding", "deltas", "term"]


@dataclass(frozen=True)
class Crossing:
    """How gains in a crossing of generator pairs (rows) by selections (columns) depend on both deltas: a line for each pair.

    ``coefficients``: (3, n_pairs, n_selections), those of the gains in each of `TERMS`. They are what least squares gives in two
    steps: of each pair's gains on its sample-level deltas a height at the mean of all deltas, and a slope; then of heights and
    slopes on the generator-level delta. So what pairs of generators have in common in all selections is never counted as several
    observations (a summary of each cluster: Matthews et al. 1990, doi 10.1136/bmj.300.6719.230).
    """

    coefficients: Array
    _along: Array  # (n_pairs,) generator-level deltas from their mean, in units of `PER`
    _within: Array  # (2, n_pairs, n_selections): coefficients of gains in a pair's height and slope

    @classmethod
    def of(cls, generator_deltas: Array, sample_deltas: Array) -> "Crossing | None":
        """From (n_pairs,) points and (n_pairs, n_selections) levels. None where one of the two does not vary: it has no slope."""
        along = (generator_deltas - generator_deltas.mean()) / PER
        own = sample_deltas - sample_deltas.mean(axis=1, keepdims=True)
        if np.allclose(along, 0) or np.isclose(own, 0).all(axis=1).any():
            return None
        slopes = own / (own**2).sum(axis=1, keepdims=True)
        away = sample_deltas.mean() - sample_deltas.mean(axis=1, keepdims=True)
        heights = 1 / own.shape[1] + away * slopes
        trend = (along / (along**2).sum())[:, None]
        return cls(np.stack([trend * heights, slopes / len(along), trend * slopes]), along, np.stack([heights, slopes]))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of `scatter`."""
        return len(self._along) - 2

    def scatter(self, gains: Array) -> Array:
        """(3,) standard errors of the terms by how far pairs' heights and slopes lie off their lines; of more than two pairs.

        ``gains``: (n_pairs, n_selections).
        """
        heights, slopes = (self._within * gains).sum(axis=2)
        n, squares = len(self._along), (self._along**2).sum()
        left = [values - values.mean() - (self._along @ values) / squares * self._along for values in (heights, slopes)]
        of_height, of_slope = (np.sqrt((values**2).sum() / self.freedom) for values in left)
        return np.array([of_height / np.sqrt(squares), of_slope / np.sqrt(n), of_slope / np.sqrt(squares)])

    def intervals(self, scores: Array, weights: Array, seed: int, sizes: tuple[int, ...]) -> list[Interval]:
        """Of each of `TERMS`, from (n_pairs, n_selections, n_seeds, n_items) scores; ``weights`` from `item_weights`.

        Seeds are drawn for a pair of generators as a whole, since its arms share their draws of traces. Where pairs scatter more
        than seeds and items explain, the interval is by `scatter`. In simulations (tests) it holds the truth in 94 to 99 % of
        cases: the more, the less pairs scatter.
        """
        scattered = self.scatter(scores.mean(axis=(2, 3))) if self.freedom > 0 else np.zeros(len(TERMS))
        found = []
        for coefficients, error in zip(self.coefficients, scattered, strict=True):
            sides = list(np.einsum("ps,pski->pki", coefficients, scores))
            interval = contrast([1] * len(sides), sides, weights, seed, sizes)
            if error > max(interval.standard_error, NOTHING):
                half, estimate = float(stdtrit(self.freedom, (1 + LEVEL) / 2) * error), interval.estimate
                interval = Interval(estimate, estimate - half, estimate + half, float(error), float(self.freedom))
            found.append(interval)
        return found


def tabulate_two_deltas(
    experiments: dict[str, Path],
    delta_correction: Path,
    evals: dict[Cell, Path],
    table: Path,
    *,
    settings: TwoDeltasSettings,
) -> None:
    """Writes the `TwoDeltas` of every crossed experiment, for each policy, method and judge of its arms.

    ``experiments`` are result tables, which have the deltas of arms, ``evals`` the evaluations of their cells. With
    ``corrected`` deltas only where the judge rated often enough to tell its noise, ``graded`` ones where answers have grades.
    Raises ScoresError.
    """
    corrections = read_result_csv(delta_correction, DeltaCorrection)
    corrected = {
        (row["judge"], row["chosen"], row["rejected"], row["selection"]): row["corrected"]
        for row in corrections.iter_rows(named=True)
    }
    rows: list[dict[str, Any]] = []
    for name, arms in settings.arms.items():
        measured = {row["arm"]: row for row in read_result_csv(experiments[name], Results).iter_rows(named=True)}
        files = [evals[cell] for arm in arms for cell in arm.cells]
        scores = dict(zip(files, item_scores(files, settings.bootstrap.ungraded), strict=True))
        shapes = {shape.key: place for place, shape in enumerate(scores[files[0]])}
        groups: dict[tuple[str, str, str], dict[tuple[str, str, str], ComparedArm]] = {}
        for arm in arms:
            groups.setdefault((arm.policy, arm.method, arm.judge), {})[arm.chosen, arm.rejected, arm.selection] = arm
        for (words, crossed), decoding in product(groups.items(), ("sampled", "greedy")):
            pairs, selections = dict.fromkeys(key[:2] for key in crossed), dict.fromkeys(key[2] for key in crossed)
            place = shapes[settings.suite, None, decoding]
            by_place = [[crossed[*pair, selection] for selection in selections] for pair in pairs]
            items = np.stack([[stack([scores[evals[cell]] for cell in arm.cells], place) for arm in line] for line in by_place])
            along = np.array([measured[line[0].arm]["generator_delta"] for line in by_place])
            judge = words[2]
            known = {
                "judged": [[measured[arm.arm]["mean_delta"] for arm in line] for line in by_place],
                "corrected": [[corrected.get((judge, *pair, selection)) for selection in selections] for pair in pairs],
                "graded": [[_graded(measured[arm.arm]) for arm in line] for line in by_place],
            }
            sizes = scores[files[0]][place].sizes
            weights = item_weights(sizes, settings.bootstrap.n_resamples, settings.bootstrap.seed)
            for deltas, levels in known.items():
                if None in [level for line in levels for level in line]:
                    continue
                crossing = Crossing.of(along, np.array(levels, float))
                if crossing is None:
                    continue
                common: dict[str, Any] = {"experiment": name, "suite": settings.suite, "decoding": decoding, "deltas": deltas}
                common |= dict(zip(("policy", "method", "judge"), words, strict=True))
                common |= {"n_generator_pairs": len(pairs), "n_selections": len(selections)}
                common |= {"n_seeds": items.shape[2], "n_items": items.shape[3]}
                intervals = crossing.intervals(items, weights, settings.bootstrap.seed, sizes)
                for term, interval, decision in zip(TERMS, intervals, decided(intervals), strict=True):
                    rows.append(common | {"term": term} | vars(interval) | decision)
    write_result_table(rows_to_table(rows, TwoDeltas), TwoDeltas, table)


def _graded(arm: dict[str, Any]) -> float | None:
    return None if arm["correct_delta"] is None else arm["correct_delta"] / PER


def two_deltas_claims(slopes: pl.DataFrame) -> list[tuple[str, dict[str, Any], str]]:
    """What ``slopes`` (`TwoDeltas` of one experiment) say by judged deltas: each row with what it is about, and a caveat.

    Those of sampled answers first.
    """
    found = []
    for row in slopes.filter(deltas="judged").iter_rows(named=True):
        where = ", ".join([row["method"], *(["greedy answers"] if row["decoding"] == "greedy" else [])])
        same = {name: row[name] for name in ("policy", "method", "judge", "decoding", "term")}
        caveats = [
            f"{words[row['term']]}: {verdict(other)}."
            for deltas, words in OTHERS.items()
            if row["term"] in words
            for other in slopes.filter(deltas=deltas, **same).iter_rows(named=True)
        ]
        found.append((f"{TERMS[row['term']]} ({where})", row, " ".join(caveats)))
    return found
