"""Result tables: accuracy of every arm and its paired differences, from item-level predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prefdelta import paths
from prefdelta.manifest import read_manifest
from prefdelta.rubric import CRITERIA
from prefdelta.statistics import Array, Interval, item_weights, mean_interval, nested_interval
from prefdelta.tables import (
    GeneratorDeltas,
    Pairs,
    Predictions,
    Results,
    read_result_csv,
    read_table,
    rows_to_table,
    write_result_table,
)

BASE = "base"  # in the column `versus`: the untuned policy


def item_scores(predictions: Path | str) -> dict[tuple[str, str], pl.DataFrame]:
    """(suite, decoding) -> columns item_id and score, the item's mean accuracy (points) over samples, sorted by item_id."""
    frame = read_table(predictions, Predictions)
    means = frame.group_by("suite", "decoding", "item_id").agg(score=100 * pl.col("correct").mean()).sort("item_id")
    return {
        (str(suite), str(decoding)): part
        for (suite, decoding), part in means.partition_by("suite", "decoding", as_dict=True).items()
    }


def _accuracy_deltas(generator_deltas: Path | str) -> dict[tuple[str, str], float]:
    """(chosen, rejected) -> generator-level delta in accuracy (points)."""
    deltas = read_result_csv(generator_deltas, GeneratorDeltas).filter(quantity="accuracy")
    return {(row["chosen"], row["rejected"]): row["estimate"] for row in deltas.iter_rows(named=True)}


def _stack(evals: list[dict[tuple[str, str], pl.DataFrame]], key: tuple[str, str]) -> Array:
    ids = evals[0][key]["item_id"]
    for other in evals:
        if not other[key]["item_id"].equals(ids):
            raise ValueError(f"evaluations of {key} hold different items: evaluate them again")
    return np.stack([scores[key]["score"].to_numpy() for scores in evals])


def tabulate_experiment(
    generator_deltas: Path | str, output: Path | str, *, study: str, content: dict[str, Any], n_resamples: int, seed: int
) -> None:
    """Writes the `Results` of an experiment (CSV, .md, .tex) from its evaluations, manifests and base evaluations.

    ``content`` is `grid.experiment_content`. Rows: each arm x suite x decoding x (accuracy, difference to the base policy,
    difference to each control).
    """
    by_sides = _accuracy_deltas(generator_deltas)
    bases = {
        policy: item_scores(paths.EVAL_BASE.format(study=study, model=policy))
        for policy in dict.fromkeys(arm["policy"] for arm in content["arms"])
    }
    scores = {arm["arm"]: [item_scores(paths.EVAL.format(**cell)) for cell in arm["cells"]] for arm in content["arms"]}
    manifests = {arm["arm"]: [read_manifest(paths.CHECKPOINT.format(**cell)) for cell in arm["cells"]] for arm in content["arms"]}
    keys = sorted(next(iter(bases.values())))
    weights = {key: item_weights(len(next(iter(bases.values()))[key]), n_resamples, seed) for key in keys}
    rows = []
    for arm in content["arms"]:
        made = manifests[arm["arm"]]
        words = {word: arm[word] for word in ("policy", "method", "judge", "chosen", "rejected", "selection")}
        common = {
            "experiment": content["experiment"],
            "arm": arm["arm"],
            **words,
            "n_seeds": len(made),
            "n_pairs": made[0]["n_pairs"],
            "n_steps": made[0]["n_steps"],
            "generator_delta": by_sides[arm["chosen"], arm["rejected"]],
            "mean_delta": float(np.mean([manifest["mean_delta"] for manifest in made])),
        }
        for key in keys:
            own = _stack(scores[arm["arm"]], key)
            others = {None: None, BASE: _stack([bases[arm["policy"]]], key)}
            others |= {control: _stack(scores[control], key) for control in arm["versus"]}
            for versus, other in others.items():
                interval = nested_interval(own, other, weights[key], seed)
                place = {"suite": key[0], "decoding": key[1], "versus": versus, "n_items": own.shape[1]}
                rows.append(common | place | clipped(interval, 0 if versus is None else -100))
    write_result_table(rows_to_table(rows, Results), Results, output)


def tabulate_profile(
    generator_deltas: Path | str, output: Path | str, *, study: str, content: dict[str, Any], n_resamples: int, seed: int
) -> None:
    """Writes the `Results` of a profile: the mean delta of the full pair set in every criterion, by generator pair."""
    by_sides = _accuracy_deltas(generator_deltas)
    rows = []
    for arm in content["arms"]:
        pairs = read_table(paths.PAIRS.format(study=study, **arm), Pairs)
        for criterion in CRITERIA:
            # Samples of one prompt are not independent, so the bootstrap's unit is the prompt.
            values = pairs.group_by("prompt_id").agg(pl.col(f"delta_{criterion}").mean()).sort("prompt_id")
            interval = mean_interval(values[f"delta_{criterion}"].to_numpy(), seed, n_resamples)
            words = {word: arm[word] for word in ("arm", "judge", "chosen", "rejected", "selection")}
            rows.append(
                {
                    "experiment": content["experiment"],
                    **words,
                    "dimension": criterion,
                    **vars(interval),
                    "n_items": len(values),
                    "n_pairs": len(pairs),
                    "generator_delta": by_sides[arm["chosen"], arm["rejected"]],
                    "mean_delta": float(pairs["delta_overall"].mean()),  # type: ignore[arg-type]
                }
            )
    write_result_table(rows_to_table(rows, Results), Results, output)


def clipped(interval: Interval, lowest: float) -> dict[str, float]:
    """The interval as columns, its bounds within ``lowest`` and 100 points."""
    return {
        "estimate": interval.estimate,
        "ci_low": max(interval.ci_low, lowest),
        "ci_high": min(interval.ci_high, 100.0),
    }
