"""An experiment's results: accuracy of every arm and its paired differences, from item-level predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.findings.generator_deltas import accuracy_deltas
from prefdelta.findings.settings import ExperimentSettings
from prefdelta.measure.intervals import Array, Interval, item_weights, mcnemar, nested_interval
from prefdelta.measure.scores import Scores, clipped, item_scores, stack
from prefdelta.measure.verdict import decided
from prefdelta.study.lattice import Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import rows_to_table, write_result_table

BASE = "base"  # in the column `versus`: the untuned policy
TOLERANCE = 0.02  # budgets within this share of each other count as equal
BUDGET = {"n_pairs": "pairs", "n_tokens": "tokens", "n_steps": "steps"}


class Results(Table):
    """A result table: ``estimate`` is accuracy, or the paired difference to ``versus`` (both in points, 0 to 100).

    Where ``task`` is null, it is the mean over the suite's tasks. ``ci_low`` and ``ci_high`` are of the row alone. Differences
    have a two-sided ``p_value``, and what is `decided` of them, corrected for all differences of the experiment to the same
    control on the same suite, task and decoding; the ``primary`` contrast is by itself. ``p_mcnemar``, of greedy answers, takes
    seeds as fixed; ``n_gained`` and ``n_lost`` are items that the arm answers right greedily and ``versus`` does not, and the
    reverse, on average over pairs of seeds. ``budget``: in what the arms' training differs by more than 2 %. ``n_tokens`` are the
    completion tokens that training reads. In ``delta_profile`` tables ``estimate`` is a mean sample-level delta of ``dimension``
    (levels of the judge's scale). ``n_ungraded``: answers of the arm's evaluations, and of those that it is compared with, which
    could not be graded and are left out; an item without any graded answer in one of an experiment's evaluations is left out of
    all.
    """

    experiment: str
    arm: str
    policy: str = pa.Field(nullable=True)
    method: str = pa.Field(nullable=True)
    judge: str
    chosen: str
    rejected: str
    selection: str
    suite: str = pa.Field(nullable=True)
    task: str = pa.Field(nullable=True)
    decoding: str = pa.Field(nullable=True)
    dimension: str = pa.Field(nullable=True)
    estimate: float
    ci_low: float
    ci_high: float
    standard_error: float = pa.Field(nullable=True, ge=0)
    freedom: float = pa.Field(nullable=True, gt=0)
    versus: str = pa.Field(nullable=True)
    primary: bool = pa.Field(nullable=True)
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    adjusted_low: float = pa.Field(nullable=True)
    adjusted_high: float = pa.Field(nullable=True)
    p_equivalent: float = pa.Field(nullable=True, ge=0, le=1)
    equivalent_within: float = pa.Field(nullable=True, gt=0)
    p_mcnemar: float = pa.Field(nullable=True, ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    n_gained: float = pa.Field(nullable=True, ge=0)
    n_lost: float = pa.Field(nullable=True, ge=0)
    budget: str = pa.Field(nullable=True)
    n_items: int = pa.Field(gt=0)
    n_ungraded: int = pa.Field(nullable=True, ge=0)
    n_seeds: int = pa.Field(nullable=True, gt=0)
    n_pairs: int = pa.Field(gt=0)
    n_tokens: int = pa.Field(nullable=True, gt=0)
    n_steps: int = pa.Field(nullable=True, gt=0)
    n_chosen_truncated: int = pa.Field(nullable=True, ge=0)
    n_rejected_truncated: int = pa.Field(nullable=True, ge=0)
    generator_delta: float = pa.Field(nullable=True, ge=-100, le=100)
    mean_delta: float
    correct_delta: float = pa.Field(nullable=True, ge=-100, le=100)
    n_identical: int = pa.Field(ge=0)

    @pa.dataframe_check(name="estimate_within_interval")
    def estimate_within_interval(cls, data: Any) -> Any:
        inside = (
            pl.col("estimate").is_finite() & (pl.col("ci_low") <= pl.col("estimate")) & (pl.col("estimate") <= pl.col("ci_high"))
        )
        return data.lazyframe.select(inside)


def tabulate_experiment(
    traces: dict[str, Path],
    evals: dict[Cell, Path],
    manifests: dict[Cell, Path],
    bases: dict[str, Path],
    table: Path,
    *,
    settings: ExperimentSettings,
) -> None:
    """Writes the `Results` of an experiment: each arm x suite (and task) x decoding x (accuracy, difference to the base policy,
    difference to each control).

    ``traces`` are by draw of a generator, ``evals`` and ``manifests`` of the trained cells, ``bases`` the policies' own
    evaluations. Raises ScoresError where too many answers are ungraded. A family of tests, which are corrected together, are the
    differences to the same control (as the experiment names it: ``random{k}``, say) by suite, task and decoding.
    """
    by_sides = accuracy_deltas(traces, settings.draws, settings.arms)
    files = [*bases.values(), *(evals[cell] for arm in settings.arms for cell in arm.cells)]
    found = dict(zip(files, item_scores(files, settings.bootstrap.ungraded), strict=True))
    untuned = {policy: found[predictions] for policy, predictions in bases.items()}
    scores = {arm.arm: [found[evals[cell]] for cell in arm.cells] for arm in settings.arms}
    trained = {arm.arm: [read_manifest(manifests[cell]) for cell in arm.cells] for arm in settings.arms}
    shapes = next(iter(untuned.values()))
    seed = settings.bootstrap.seed
    weights = [item_weights(shape.sizes, settings.bootstrap.n_resamples, seed) for shape in shapes]
    rows = []
    families: dict[tuple[Any, ...], list[tuple[dict[str, Any], Interval]]] = {}
    for arm in settings.arms:
        made = trained[arm.arm]
        common = {
            "experiment": settings.experiment,
            "arm": arm.arm,
            **arm.words,
            "n_seeds": len(made),
            **_budget(made),
            "n_chosen_truncated": made[0]["n_truncated"]["chosen"],
            "n_rejected_truncated": made[0]["n_truncated"]["rejected"],
            "generator_delta": by_sides[arm.chosen, arm.rejected],
            "mean_delta": float(np.mean([manifest["mean_delta"] for manifest in made])),
            "correct_delta": _mean([manifest["correct_delta"] for manifest in made]),
            "n_identical": round(np.mean([manifest["n_identical"] for manifest in made])),
        }
        for place, shape in enumerate(shapes):
            sides: dict[str | None, list[list[Scores]]] = {None: [], BASE: [untuned[arm.policy]]}
            sides |= {control: scores[control] for control in arm.versus}
            own = stack(scores[arm.arm], place)
            for versus, side in sides.items():
                other = stack(side, place) if side else None
                interval = nested_interval(own, other, weights[place], seed, shape.sizes)
                where = {"suite": shape.suite, "task": shape.task, "decoding": shape.decoding, "n_items": own.shape[1]}
                where["n_ungraded"] = sum(seed_scores[place].n_ungraded for seed_scores in [*scores[arm.arm], *side])
                row = common | where | {"versus": versus} | clipped(interval, 0 if versus is None else -100)
                row |= {"standard_error": interval.standard_error, "freedom": interval.freedom}
                if other is not None:
                    place_of_control = arm.versus.get(versus or "", BASE)
                    row["primary"] = _is_primary(settings, row)
                    families.setdefault((shape.key, place_of_control, row["primary"]), []).append((row, interval))
                    if shape.decoding == "greedy":
                        row["p_mcnemar"] = mcnemar(own, other)
                        row["n_gained"], row["n_lost"] = flips(own, other)
                if versus in trained:
                    row["budget"] = budget_difference(common, _budget(trained[versus]))
                rows.append(row)
    for family in families.values():
        decisions = decided([interval for _, interval in family], settings.smallest_effect, limit=100)
        for (row, _), decision in zip(family, decisions, strict=True):
            row |= decision
    write_result_table(rows_to_table(rows, Results), Results, table)


def _is_primary(settings: ExperimentSettings, row: dict[str, Any]) -> bool:
    """Whether the comparison ``row`` is the experiment's primary contrast."""
    wanted, where = settings.primary, (row["arm"], row["versus"], row["suite"], row["task"], row["decoding"])
    return wanted is not None and where == (wanted.arm, wanted.versus, wanted.suite, None, "sampled")


def flips(arm: Array, versus: Array) -> tuple[float, float]:
    """Numbers of items that ``arm`` has right and ``versus`` has not, and the reverse, from (n_seeds, n_items) scores of single
    answers: on average over all pairs of a seed of either."""
    one, other = (arm > 0).mean(axis=0), (versus > 0).mean(axis=0)
    return float((one * (1 - other)).sum()), float(((1 - one) * other).sum())


def _mean(known: list[float | None]) -> float | None:
    return None if None in known else float(np.mean(np.array(known, float)))


def _budget(made: list[dict[str, Any]]) -> dict[str, int]:
    """What an arm's training takes, on average over its manifests."""
    keys = {"n_pairs": "n_pairs", "n_completion_tokens": "n_tokens", "n_steps": "n_steps"}
    return {name: round(np.mean([manifest[key] for manifest in made])) for key, name in keys.items()}


def budget_difference(arm: dict[str, int], versus: dict[str, int]) -> str | None:
    """In what ``arm``'s budget differs from that of ``versus`` by more than 2 %, such as "pairs -79 %, tokens +5 %"; else None.

    Budgets have ``n_pairs``, ``n_tokens`` (completion tokens that training reads) and ``n_steps``.
    """
    differing = [
        f"{word} {100 * arm[key] / versus[key] - 100:+.0f} %"
        for key, word in BUDGET.items()
        if abs(arm[key] - versus[key]) > TOLERANCE * versus[key]
    ]
    return ", ".join(differing) or None
