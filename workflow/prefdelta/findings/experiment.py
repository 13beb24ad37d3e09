"""Result tables: accuracy of every arm and its paired differences, from item-level predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.findings.intervals import Array, Interval, holm, item_weights, mcnemar, mean_interval, nested_interval
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA
from prefdelta.tables.findings import GeneratorDeltas, Results
from prefdelta.tables.io import ARM, read_result_csv, read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs, Predictions

BASE = "base"  # in the column `versus`: the untuned policy
TOLERANCE = 0.02  # budgets within this share of each other count as equal
BUDGET = {"n_pairs": "pairs", "n_tokens": "tokens", "n_steps": "steps"}


@dataclass(frozen=True)
class Scores:
    """Item scores (points) of a suite, or of one of its tasks (``task`` is not None), in a fixed order of items.

    In a suite's scores the items of each task are weighted so that their plain mean is the mean over tasks: AIME's 30 problems
    count as much as GSM8K's 1,319. ``sizes`` are the numbers of items by task.
    """

    suite: str
    task: str | None
    decoding: str
    item_ids: tuple[str, ...]
    sizes: tuple[int, ...]
    values: Array

    @property
    def key(self) -> tuple[str, str | None, str]:
        return self.suite, self.task, self.decoding


def item_scores(predictions: Path | str) -> list[Scores]:
    """The scores of every suite, and of each task of those that have several; an item's is its mean over samples."""
    frame = read_table(predictions, Predictions)
    keys = ["suite", "decoding", "task", "item_id"]
    means = frame.group_by(keys).agg(score=100 * pl.col("correct").mean()).sort(keys)
    found = []
    for (suite, decoding), part in means.partition_by("suite", "decoding", as_dict=True, maintain_order=True).items():
        by_task = part.partition_by("task", maintain_order=True)
        sizes = tuple(len(rows) for rows in by_task)
        weighted = [rows["score"].to_numpy() * (len(part) / len(sizes) / len(rows)) for rows in by_task]
        found.append(Scores(str(suite), None, str(decoding), tuple(part["item_id"]), sizes, np.concatenate(weighted)))
        if len(by_task) > 1:
            found += [
                Scores(str(suite), rows["task"][0], str(decoding), tuple(rows["item_id"]), (len(rows),), rows["score"].to_numpy())
                for rows in by_task
            ]
    return found


def _accuracy_deltas(generator_deltas: Path | str) -> dict[tuple[str, str], float]:
    """(chosen, rejected) -> generator-level delta in accuracy (points)."""
    deltas = read_result_csv(generator_deltas, GeneratorDeltas).filter(quantity="accuracy")
    return {(row["chosen"], row["rejected"]): row["estimate"] for row in deltas.iter_rows(named=True)}


def stack(evals: list[list[Scores]], place: int) -> Array:
    """(n_seeds, n_items) scores at ``place`` of each seed's `item_scores`. Raises ValueError where the items differ."""
    first = evals[0][place]
    for other in evals:
        if other[place].item_ids != first.item_ids:
            raise ValueError(f"evaluations of {first.key} hold different items: evaluate them again")
    return np.stack([scores[place].values for scores in evals])


def suite_scores(files: list[str], suite: str) -> tuple[Array, tuple[int, ...]]:
    """(n_seeds, n_items) sampled scores of ``suite``, a file each, and the numbers of items by task."""
    evals = [[scores for scores in item_scores(file) if scores.key == (suite, None, "sampled")] for file in files]
    return stack(evals, 0), evals[0][0].sizes


def tabulate_experiment(
    generator_deltas: Path | str, output: Path | str, *, study: str, content: dict[str, Any], n_resamples: int, seed: int
) -> None:
    """Writes the `Results` of an experiment (CSV, .md, .tex) from its evaluations, manifests and base evaluations.

    ``content`` is `grid.experiment_content`. Rows: each arm x suite (and task) x decoding x (accuracy, difference to the base
    policy, difference to each control). Tests of differences are corrected (Holm) within the experiment, by suite and decoding.
    """
    by_sides = _accuracy_deltas(generator_deltas)
    bases = {
        policy: item_scores(paths.EVAL_BASE.format(study=study, model=policy))
        for policy in dict.fromkeys(arm["policy"] for arm in content["arms"])
    }
    scores = {arm["arm"]: [item_scores(paths.EVAL.format(**cell)) for cell in arm["cells"]] for arm in content["arms"]}
    manifests = {arm["arm"]: [read_manifest(paths.CHECKPOINT.format(**cell)) for cell in arm["cells"]] for arm in content["arms"]}
    shapes = next(iter(bases.values()))
    weights = [item_weights(shape.sizes, n_resamples, seed) for shape in shapes]
    rows = []
    for arm in content["arms"]:
        made = manifests[arm["arm"]]
        words = {word: arm[word] for word in ARM}
        common = {
            "experiment": content["experiment"],
            "arm": arm["arm"],
            **words,
            "n_seeds": len(made),
            **_budget(made),
            "n_chosen_truncated": made[0]["n_truncated"]["chosen"],
            "n_rejected_truncated": made[0]["n_truncated"]["rejected"],
            "generator_delta": by_sides[arm["chosen"], arm["rejected"]],
            "mean_delta": float(np.mean([manifest["mean_delta"] for manifest in made])),
        }
        for place, shape in enumerate(shapes):
            own = stack(scores[arm["arm"]], place)
            others = {None: None, BASE: stack([bases[arm["policy"]]], place)}
            others |= {control: stack(scores[control], place) for control in arm["versus"]}
            for versus, other in others.items():
                interval = nested_interval(own, other, weights[place], seed, shape.sizes)
                where = {"suite": shape.suite, "task": shape.task, "decoding": shape.decoding, "n_items": own.shape[1]}
                row = common | where | {"versus": versus} | clipped(interval, 0 if versus is None else -100)
                if other is not None:
                    row |= {"p_value": interval.p_value, "minimum_detectable": interval.minimum_detectable}
                    row["p_mcnemar"] = mcnemar(own, other) if shape.decoding == "greedy" else None
                if versus in manifests:
                    row["budget"] = budget_difference(common, _budget(manifests[versus]))
                rows.append(row)
    corrected: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if "p_value" in row:
            corrected.setdefault((row["suite"], row["task"], row["decoding"]), []).append(row)
    for family in corrected.values():
        for row, p_holm in zip(family, holm([row["p_value"] for row in family]), strict=True):
            row["p_holm"] = p_holm
    write_result_table(rows_to_table(rows, Results), Results, output)


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
