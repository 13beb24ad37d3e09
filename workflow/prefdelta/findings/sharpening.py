"""What a gain is made of: sharpening, which a lower temperature does as well, and the rest, which is new."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.findings.experiment import BASE
from prefdelta.findings.settings import SharpeningSettings, ShiftedArm
from prefdelta.measure.intervals import Array, Interval, contrast, item_weights, mean_interval
from prefdelta.measure.scores import Scores, clipped, item_counts, scores_at, stack
from prefdelta.measure.settings import Bootstrap
from prefdelta.measure.verdict import arm_names, decided
from prefdelta.study.lattice import SIDES, Cell
from prefdelta.tables.check import Table
from prefdelta.tables.io import ARM, read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Predictions, Shifts, Tempered

BEST = "base at its best temperature"  # in the column `arm`, as is `BASE`
PASSES = (2, 4, 8, 16)  # pass@1 is the accuracy
FOLDS = 5
DIFFERENCES = ("gain", "sharpening", "new", "over_best", "greedy_gain", "greedy_over_best")
# Of an answer, from `Shifts`.
ANSWERS = {
    "kl": pl.col("logp") - pl.col("base_logp"),
    "kl_per_token": (pl.col("logp") - pl.col("base_logp")) / pl.col("n_tokens").clip(lower_bound=1),
    "entropy": pl.col("entropy"),
    "entropy_per_token": pl.col("entropy") / pl.col("n_tokens").clip(lower_bound=1),
    "length": pl.col("n_tokens").cast(pl.Float64),
}
KL = ("kl", "kl_per_token")
NATS = (*KL, "entropy", "entropy_per_token", "held_out_margin", "chosen_change", "rejected_change", "training_margin")
# TRL's name of what it logs -> quantity, and by how much it is multiplied.
TRAINING = {"rewards/accuracies": ("training_accuracy", 100), "rewards/margins": ("training_margin", 1)}
BEST_TEMPERATURE = "against the base policy at its best temperature (mostly {temperature}: {accuracy:.1f})"
OVER_BEST = {
    "over_best": f"sampled accuracy, {BEST_TEMPERATURE}",
    "greedy_over_best": f"greedy accuracy, {BEST_TEMPERATURE}",
}
Row = dict[str, Any]
Place = tuple[str, str | None, str]


class Sharpening(Table):
    """What each arm has changed, by ``quantity``, and what its untuned policy does at each temperature (``arm`` is `base`).

    Where ``suite`` is not null, a quantity is the mean over its tasks, of answers sampled at the evaluation's temperature. In
    points: `accuracy` (which is pass@1) and `pass@k` (Chen et al. 2021, arXiv 2107.03374); `gain` over the policy, which is
    `sharpening` (what the policy gains at the temperature at which its answers have the arm's entropy, interpolated) + `new`;
    `over_best`, over the policy at its best temperature (chosen for each fifth of the items on the other four, greedy answers
    among them); and of greedy answers `greedy_accuracy`, `greedy_gain` over the policy's, and `greedy_over_best`. Of an answer,
    on average: `kl` (of the arm from the policy, by Monte Carlo) and `entropy` in nats, also `_per_token`; `length` in tokens.

    Of pairs that the arm was not trained on (``held_out``: of another draw of its generators, or those of its own draw that were
    not selected): `held_out_accuracy` (points; equal rewards count half) and `held_out_margin` of the implicit reward, which is
    beta (1 where the method has none) x the change of log-probability; `chosen_change` and `rejected_change` of the
    log-probability of a trace (nats). `training_accuracy` and `training_margin` are those of the last step's own pairs.

    Of differences, `decided` is corrected for all arms of a policy, by suite and quantity. Intervals are over items and seeds
    (entropies are taken as known); of held-out pairs over seeds, or over the pairs of a single one; of training over seeds.
    ``n_items``: items, answers or pairs.
    """

    arm: str
    policy: str
    method: str = pa.Field(nullable=True)
    judge: str = pa.Field(nullable=True)
    chosen: str = pa.Field(nullable=True)
    rejected: str = pa.Field(nullable=True)
    selection: str = pa.Field(nullable=True)
    suite: str = pa.Field(nullable=True)
    quantity: str
    unit: str = pa.Field(isin=["points", "nats", "tokens"])
    temperature: float = pa.Field(nullable=True, ge=0)
    held_out: str = pa.Field(nullable=True)
    estimate: float
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    standard_error: float = pa.Field(nullable=True, ge=0)
    freedom: float = pa.Field(nullable=True, gt=0)
    adjusted_low: float = pa.Field(nullable=True)
    adjusted_high: float = pa.Field(nullable=True)
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    n_items: int = pa.Field(gt=0)
    n_seeds: int = pa.Field(gt=0)


def tabulate_sharpening(
    evals: dict[Cell, Path],
    bases: dict[str, Path],
    tempered: dict[str, Path],
    shifts: dict[Cell, Path],
    base_shifts: dict[str, Path],
    manifests: dict[Cell, Path],
    table: Path,
    *,
    settings: SharpeningSettings,
) -> None:
    """Writes the `Sharpening` of all arms and of their policies.

    ``bases``, ``tempered`` (which may be empty) and ``base_shifts`` are by policy. Raises ScoresError where too many answers are
    ungraded.
    """
    names = arm_names(pl.DataFrame([arm.words for arm in settings.arms], schema=ARM))
    rows: list[Row] = []
    for policy in bases:
        arms = {name: arm for name, arm in zip(names, settings.arms, strict=True) if arm.policy == policy}
        cells = [cell for arm in arms.values() for cell in arm.cells]
        moved = {cell: read_table(shifts[cell], Shifts) for cell in cells}
        counts = _counts(bases[policy], tempered.get(policy), {cell: evals[cell] for cell in cells}, settings)
        rows += _suite_rows(policy, arms, counts, moved, read_table(base_shifts[policy], Shifts), settings)
        rows += _pass_rows(policy, arms, counts, settings.temperature, settings.bootstrap)
        for name, arm in arms.items():
            common = {"arm": name, **arm.words}
            rows += _pair_rows(common, arm, [moved[cell] for cell in arm.cells], settings.bootstrap)
            rows += _training_rows(common, [read_manifest(manifests[cell])["metrics"] for cell in arm.cells], settings.bootstrap)
    _decide(rows)
    write_result_table(rows_to_table(rows, Sharpening), Sharpening, table)


def _counts(
    base: Path, tempered: Path | None, evals: dict[Cell, Path], settings: SharpeningSettings
) -> dict[Cell | float, pl.DataFrame]:
    """The `item_counts` of a policy at each temperature, that of the evaluation first, and of its arms' cells.

    An item without a graded answer in one of them is left out of all.
    """
    most = settings.bootstrap.ungraded
    files: list[tuple[Cell | float, Path]] = [(settings.temperature, base), *evals.items()]
    counts = {key: item_counts(read_table(file, Predictions), file, most) for key, file in files}
    if tempered:
        for (value,), part in read_table(tempered, Tempered).partition_by("temperature", as_dict=True).items():
            counts[float(str(value))] = item_counts(part.with_columns(decoding=pl.lit("sampled")), tempered, most)
    unknown = pl.concat(table.filter(graded=0).select("suite", "item_id") for table in counts.values())
    return {key: table.join(unknown, on=unknown.columns, how="anti", maintain_order="left") for key, table in counts.items()}


def _by_place(counts: Mapping[Cell | float, pl.DataFrame], k: int = 1) -> dict[Cell | float, dict[Place, Scores]]:
    """The `scores_at` ``k``, by suite, task and decoding."""
    return {
        key: {scores.key: scores for scores in several}
        for key, several in zip(counts, scores_at(list(counts.values()), k), strict=True)
    }


def _suite_rows(
    policy: str,
    arms: Mapping[str, ShiftedArm],
    counts: Mapping[Cell | float, pl.DataFrame],
    moved: Mapping[Cell, pl.DataFrame],
    untuned: pl.DataFrame,
    settings: SharpeningSettings,
) -> list[Row]:
    """The rows that have a suite: of a policy, and of its arms."""
    rows: list[Row] = []
    found, usual, bootstrap = _by_place(counts), settings.temperature, settings.bootstrap
    for suite in settings.suites:
        place, greedy = (suite, None, "sampled"), (suite, None, "greedy")
        if place not in found[usual]:
            continue  # no answer to it could be graded
        sizes, own = found[usual][place].sizes, {"arm": BASE, "policy": policy, "suite": suite}
        curve = {float(key): by_place[place].values for key, by_place in found.items() if not isinstance(key, Cell)}
        entropies = {0.0: 0.0}
        if greedy in found[usual]:
            curve[0.0] = found[usual][greedy].values
        for value, accuracies in curve.items():
            at = own | {"temperature": value}
            rows.append(_row(at, "accuracy", accuracies[None], sizes, bootstrap))
            if value:
                measured, of_tasks = _answers(untuned, suite, value)
                entropies[value] = float(measured["entropy"].mean())
                rows += [_row(at, name, values[None], of_tasks, bootstrap) for name, values in measured.items() if name not in KL]
        best, value = at_best_temperature(curve, sizes)
        rows.append(_row(own | {"arm": BEST, "temperature": value}, "accuracy", best[None], sizes, bootstrap))
        for name, arm in arms.items():
            common = {"arm": name, **arm.words, "suite": suite, "temperature": usual}
            several = [_answers(moved[cell], suite, usual or 1.0) for cell in arm.cells]
            stacked = {quantity: np.stack([measured[quantity] for measured, _ in several]) for quantity in ANSWERS}
            points = [(entropies[value], accuracies) for value, accuracies in curve.items()]
            equal = np.stack([at_entropy(points, entropy) for entropy in stacked["entropy"].mean(axis=1)])
            sampled, base = _stacked(found, arm, place), curve[usual]
            quantities = {"accuracy": sampled, "gain": sampled - base, "sharpening": equal - base, "new": sampled - equal}
            quantities["over_best"] = sampled - best
            if greedy in found[usual]:
                single = _stacked(found, arm, greedy)
                quantities |= {"greedy_accuracy": single, "greedy_gain": single - curve[0.0], "greedy_over_best": single - best}
            rows += [_row(common, quantity, values, sizes, bootstrap) for quantity, values in quantities.items()]
            rows += [_row(common, quantity, values, several[0][1], bootstrap) for quantity, values in stacked.items()]
    return rows


def _pass_rows(
    policy: str,
    arms: Mapping[str, ShiftedArm],
    counts: Mapping[Cell | float, pl.DataFrame],
    usual: float,
    bootstrap: Bootstrap,
) -> list[Row]:
    """The rows of pass@k, for k up to the number of samples of every item, at the ``usual`` temperature."""
    rows: list[Row] = []
    alike = {key: table.filter(decoding="sampled") for key, table in counts.items() if key == usual or isinstance(key, Cell)}
    most = min(table.select((pl.col("graded") + pl.col("ungraded")).min()).item() for table in alike.values())
    for k in [k for k in PASSES if k <= most]:
        found = _by_place(alike, k)
        for place, scores in found[usual].items():
            if place[1] is None:
                at = {"suite": place[0], "temperature": usual}
                rows.append(
                    _row({"arm": BASE, "policy": policy, **at}, f"pass@{k}", scores.values[None], scores.sizes, bootstrap)
                )
                for name, arm in arms.items():
                    values = _stacked(found, arm, place)
                    rows.append(_row({"arm": name, **arm.words, **at}, f"pass@{k}", values, scores.sizes, bootstrap))
    return rows


def _stacked(found: Mapping[Cell | float, Mapping[Place, Scores]], arm: ShiftedArm, place: Place) -> Array:
    """(n_seeds, n_items) scores of an arm."""
    return stack([[found[cell][place]] for cell in arm.cells], 0)


def at_best_temperature(curve: Mapping[float, Array], sizes: Sequence[int]) -> tuple[Array, float]:
    """Scores of each item at the temperature that is best on four fifths of the items, of which it is none; and the best of all.

    ``curve``: temperature -> scores of items, which come in tasks of ``sizes``. So what is compared with these scores is not
    compared with the largest of several chance errors.
    """
    temperatures, scores = list(curve), np.stack(list(curve.values()))
    folds = np.concatenate([np.arange(size) % FOLDS for size in sizes])
    chosen = [int((scores * (folds != fold)).sum(axis=1).argmax()) for fold in range(FOLDS)]
    best: Array = scores[np.array(chosen)[folds], np.arange(len(folds))]
    return best, temperatures[int(scores.sum(axis=1).argmax())]


def at_entropy(points: Sequence[tuple[float, Array]], entropy: float) -> Array:
    """Scores of items at ``entropy``, linearly between ``points`` (entropy, scores), beyond which the last of them holds."""
    known = sorted(points, key=lambda point: point[0])
    x = [point[0] for point in known]
    weights = [float(np.interp(entropy, x, unit)) for unit in np.eye(len(x))]
    scores: Array = np.tensordot(weights, np.stack([point[1] for point in known]), axes=1)
    return scores


def _answers(shifts: pl.DataFrame, suite: str, temperature: float) -> tuple[dict[str, Array], tuple[int, ...]]:
    """The `ANSWERS` of each answer to a suite, weighted so that their means are those over tasks, and the numbers by task."""
    rows = shifts.filter(kind="answer", suite=suite, temperature=temperature).sort("task", "key")
    weight = pl.len() / pl.col("task").n_unique() / pl.col("key").count().over("task")
    values = rows.select(**{name: value * weight for name, value in ANSWERS.items()})
    sizes = rows.group_by("task", maintain_order=True).len()["len"]
    return {name: values[name].to_numpy() for name in ANSWERS}, tuple(sizes)


def _pair_rows(common: Row, arm: ShiftedArm, shifts: Sequence[pl.DataFrame], bootstrap: Bootstrap) -> list[Row]:
    """Rows of what an arm's seeds say of held-out pairs; none where a seed has no such pairs."""
    seeds = []
    change = pl.col("logp") - pl.col("base_logp")
    for moved in shifts:
        sides = [moved.filter(kind=side).select("key", change=change) for side in SIDES]
        both = sides[0].join(sides[1], on="key", suffix="_rejected")
        margin = (arm.beta or 1.0) * (pl.col("change") - pl.col("change_rejected"))
        right = 50 * (pl.col("change") > pl.col("change_rejected")) + 50 * (pl.col("change") >= pl.col("change_rejected"))
        changes = {"chosen_change": pl.col("change"), "rejected_change": pl.col("change_rejected")}
        seeds.append(both.select(held_out_accuracy=right.cast(pl.Float64), held_out_margin=margin, **changes))
    if not all(map(len, seeds)):
        return []
    n_items = round(sum(map(len, seeds)) / len(seeds))
    rows = []
    for quantity in seeds[0].columns:
        each = [seed[quantity].to_numpy() for seed in seeds]
        values = np.array([values.mean() for values in each]) if len(each) > 1 else each[0]
        at = common | {"held_out": arm.held_out, "n_items": n_items, "n_seeds": len(each)}
        rows.append(at | _columns(quantity, mean_interval(values, bootstrap.seed, bootstrap.n_resamples)))
    return rows


def _training_rows(common: Row, metrics: Sequence[Mapping[str, float]], bootstrap: Bootstrap) -> list[Row]:
    """Rows of what TRL has logged of the last step of each seed, as far as the method has it."""
    rows = []
    for logged, (quantity, scale) in TRAINING.items():
        values = scale * np.array([one[logged] for one in metrics if logged in one])
        if len(values):
            at = common | {"n_items": 1, "n_seeds": len(values)}
            rows.append(at | _columns(quantity, mean_interval(values, bootstrap.seed, bootstrap.n_resamples)))
            if len(values) == 1:
                rows[-1] |= {"ci_low": None, "ci_high": None}
    return rows


def _row(common: Row, quantity: str, values: Array, sizes: tuple[int, ...], bootstrap: Bootstrap) -> Row:
    """A row of the mean of (n_seeds, n_items) ``values``."""
    interval = contrast([1], [values], item_weights(sizes, bootstrap.n_resamples, bootstrap.seed), bootstrap.seed, sizes)
    return common | {"n_seeds": values.shape[0], "n_items": values.shape[1]} | _columns(quantity, interval)


def _columns(quantity: str, interval: Interval) -> Row:
    unit = "tokens" if quantity == "length" else "nats" if quantity in NATS else "points"
    row: Row = {"quantity": quantity, "unit": unit}
    if unit == "points":
        row |= clipped(interval, -100 if quantity in DIFFERENCES else 0)
    else:
        row |= {"estimate": interval.estimate, "ci_low": interval.ci_low, "ci_high": interval.ci_high}
    if quantity in DIFFERENCES:
        row |= {"standard_error": interval.standard_error, "freedom": interval.freedom}
    return row


def _decide(rows: list[Row]) -> None:
    """Adds what is `decided` of the differences among ``rows``."""
    families: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["quantity"] in DIFFERENCES:
            families.setdefault((row["policy"], row["suite"], row["quantity"]), []).append(row)
    for family in families.values():
        for row, found in zip(family, decided([Interval.of(row) for row in family], limit=100), strict=True):
            row |= found


def beyond_temperature(results: pl.DataFrame, strongest: Sequence[Row], suite: str) -> list[tuple[str, Row]]:
    """(what, row) of whether the arms ``strongest`` (their words) do better than their untuned policies can.

    ``results`` are `Sharpening`; what is `decided` here is corrected for these arms, by comparison.
    """
    found: list[tuple[str, Row]] = []
    shown = results.filter(suite=suite)
    for quantity, said in {**OVER_BEST, "greedy_gain": "greedy accuracy, against the base policy's"}.items():
        tested = []
        for words in {tuple(words[name] for name in ARM): words for words in strongest}.values():
            rows = shown.filter(pl.col("quantity") == quantity, *(pl.col(name) == words[name] for name in ARM))
            for policy in shown.filter(arm=BEST, policy=words["policy"]).iter_rows(named=True):
                temperature = f"{policy['temperature']:g}" if policy["temperature"] else "greedy"
                what = said.format(temperature=temperature, accuracy=policy["estimate"])
                tested += [(f"{row['arm']}: {what}", row) for row in rows.iter_rows(named=True)]
        decisions = decided([Interval.of(row) for _, row in tested], limit=100)
        found += [(what, row | decision) for (what, row), decision in zip(tested, decisions, strict=True)]
    return found
