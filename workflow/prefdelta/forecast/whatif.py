"""What if: everything that is known of an experiment's arms before any of them is trained."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.findings.capability import Capability
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.predictor import predict
from prefdelta.forecast.settings import PlannedArm, WhatIfSettings
from prefdelta.measure.verdict import arm_names
from prefdelta.study.dimensions import Dimensions
from prefdelta.study.lattice import SIDES, PairSet
from prefdelta.study.recipe import examples_read
from prefdelta.study.study import Cost
from prefdelta.tables.check import Table, with_columns
from prefdelta.tables.checksum import read_summed
from prefdelta.tables.io import (
    ARM,
    read_batches,
    read_dimensions,
    read_result_csv,
    read_table,
    rows_to_table,
    write_result_table,
)
from prefdelta.tables.stages import Pairs, Predictions, References

MANY_PASSES = 4  # more repetition adds little (of pretraining: Muennighoff et al. 2023, arXiv 2305.16264)
SHOWN = 5  # names in a sentence
_FIXED = ("delta_overall", "delta_overall_sd", "delta_overall_q10", "delta_overall_q50", "delta_overall_q90")


class OfArms(Table):
    """A row for each arm. Key: the six words."""

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str

    class Config:
        unique = ARM


class WhatIf(OfArms):
    """Every planned arm before training: means over its cells (seeds and draws of traces). Key: the six words.

    ``chosen_tokens`` and ``rejected_tokens`` are completion tokens of a pair, the policy's and cut to ``max_length`` where
    stored references have them (then ``_truncated``, the shares that are cut, are known of the sides that training reads), else
    as the generator counted them. ``n_passes``: how often the steps read each pair; ``n_training_tokens``: completion tokens
    that they read in one cell; ``n_evaluation_tokens``: that one evaluation of the untuned policy wrote. ``negative``: share of
    pairs with an overall delta below 0; ``identical``: with equal texts; ``chosen_correct`` and ``rejected_correct`` are shares
    of graded answers. Shares are 0 to 1; deltas are in levels of the judge's scale, generator_delta and gains in points.
    There is a ``delta_`` of each dimension that a judge of the study rates, null where the arm's does not.
    ``generator_delta_overall``: mean rating of all traces by the arm's judge, chosen generator minus rejected one. Hours and
    ``cost`` are those of all ``n_seeds`` cells together. ``predictor``: what predicted the gains: study, suite, and the
    SHA-256 of its file.
    """

    trainer: str
    experiments: str
    n_seeds: int = pa.Field(gt=0)
    n_pairs: float = pa.Field(gt=0)
    n_steps: int = pa.Field(gt=0)
    n_passes: float = pa.Field(ge=0)
    chosen_tokens: float = pa.Field(ge=0)
    rejected_tokens: float = pa.Field(ge=0)
    n_training_tokens: float = pa.Field(ge=0)
    n_evaluation_tokens: float = pa.Field(ge=0)
    delta_overall: float
    delta_overall_sd: float = pa.Field(ge=0)
    delta_overall_q10: float
    delta_overall_q50: float
    delta_overall_q90: float
    chosen_overall: float
    rejected_overall: float
    negative: float = pa.Field(ge=0, le=1)
    identical: float = pa.Field(ge=0, le=1)
    chosen_correct: float = pa.Field(nullable=True, ge=0, le=1)
    rejected_correct: float = pa.Field(nullable=True, ge=0, le=1)
    chosen_truncated: float = pa.Field(nullable=True, ge=0, le=1)
    rejected_truncated: float = pa.Field(nullable=True, ge=0, le=1)
    generator_delta: float = pa.Field(nullable=True)
    generator_delta_overall: float = pa.Field(nullable=True)
    base_accuracy: float = pa.Field(nullable=True, ge=0, le=100)
    training_hours: float = pa.Field(nullable=True, ge=0)
    evaluation_hours: float = pa.Field(nullable=True, ge=0)
    cost: float = pa.Field(nullable=True, ge=0)
    predicted_gain: float = pa.Field(nullable=True)
    predicted_low: float = pa.Field(nullable=True)
    predicted_high: float = pa.Field(nullable=True)
    predictor: str = pa.Field(nullable=True)

    @classmethod
    def by(cls, dimensions: Dimensions) -> type[Table]:
        return with_columns(cls, {f"delta_{name}": (float, pa.Field(nullable=True)) for name in dimensions.names})


def read_whatif(table: Path) -> pl.DataFrame:
    """A table `WhatIf`, with the dimensions that it has. Raises TableError."""
    names = rated_dimensions(read_summed(table).partition(b"\n")[0].decode().split(","))
    return read_result_csv(table, WhatIf.by(Dimensions(names=names, scale=None, whole=False)))


def rated_dimensions(columns: Iterable[str]) -> tuple[str, ...]:
    """The dimensions that a `WhatIf` with these ``columns`` has."""
    return tuple(name.removeprefix("delta_") for name in columns if name.startswith("delta_") and name not in _FIXED)


def tabulate_whatif(
    generator_deltas: Path,
    capability: Path,
    pairs: dict[PairSet, Path],
    references: dict[tuple[str, int, str, str], Path],
    bases: dict[str, Path],
    predictor: Path | None,
    table: Path,
    *,
    settings: WhatIfSettings,
) -> None:
    """Writes `WhatIf`: size, tokens, deltas, truncation, cost and predicted gain on a suite of each arm.

    ``references`` (by policy, length limit, arithmetic and generator) know the lengths of an arm's traces. ``bases`` are the
    evaluations of untuned policies. A cost turns tokens into hours and money. Without a ``predictor`` no gain is predicted.
    Raises TableError, PredictorError.
    """
    deltas = {
        (row["judge"], row["chosen"], row["rejected"], row["quantity"]): row["estimate"]
        for row in read_result_csv(generator_deltas, GeneratorDeltas).iter_rows(named=True)
    }
    able = read_result_csv(capability, Capability).filter(pl.col("task").is_null(), suite=settings.suite, decoding="sampled")
    base = dict(able.select("model", "estimate").iter_rows())
    written = {policy: _written(file) for policy, file in bases.items()}
    summary = cache(_summary)  # arms share pair sets
    rows = []
    for arm in settings.arms:
        cells = []
        for cell in arm.cells:
            lengths: tuple[Path, ...] = ()
            if arm.lengths:
                lengths = tuple(references[arm.policy, *arm.lengths, generator] for generator in (cell.chosen, cell.rejected))
            cells.append(_training(arm, summary(pairs[cell.pairs], lengths, arm.max_length)))
        means = pl.DataFrame(cells).mean().row(0, named=True)
        sides = arm.judge, arm.chosen, arm.rejected
        rows.append(
            {
                **arm.model_dump(include={*ARM, "trainer", "n_steps"}),
                "experiments": ", ".join(arm.experiments),
                "n_seeds": len(cells),
                **means,
                "n_evaluation_tokens": written[arm.policy],
                "generator_delta": deltas.get((*sides, "accuracy")),
                "generator_delta_overall": deltas[*sides, "overall"],
                "base_accuracy": base.get(arm.policy),
                **_cost(settings.cost, means["n_training_tokens"] * len(cells), written[arm.policy] * len(cells)),
            }
        )
    names = tuple(dict.fromkeys(name for file in pairs.values() for name in read_dimensions(file).names))
    model = WhatIf.by(Dimensions(names=names, scale=None, whole=False))
    planned = rows_to_table(rows, model)
    if predictor:
        planned = planned.with_columns(predict(predictor, planned).get_columns())
    fixed = list(WhatIf.to_schema().columns)
    place = fixed.index("delta_overall")
    write_result_table(planned.select(*fixed[:place], *(f"delta_{name}" for name in names), *fixed[place:]), model, table)


def _summary(pairs: Path, references: tuple[Path, ...], max_length: int) -> dict[str, Any]:
    """What a pair set is on average; without ``references``, tokens are as the generators count them and not cut."""
    criteria = [f"delta_{criterion}" for criterion in read_dimensions(pairs).criteria]
    by_side = [f"{side}_{name}" for side in SIDES for name in ("trace_id", "overall", "correct", "tokens")]
    # Texts are compared batch by batch, so that they are never in memory all at once.
    batches = read_batches(pairs, Pairs, ["pair_id", *SIDES, *by_side, *criteria])
    frame = pl.concat([batch.with_columns(identical=pl.col("chosen") == pl.col("rejected")).drop(*SIDES) for batch in batches])
    frame = frame.with_columns(pl.lit(None, pl.Boolean).alias(f"{side}_truncated") for side in SIDES)
    if references:
        # Of a flipped pair, the chosen trace is in the other generator's table.
        lengths = pl.concat([read_table(file, References) for file in references])
        for side in SIDES:
            known = frame.select(trace_id=f"{side}_trace_id").join(lengths, on="trace_id", how="left", maintain_order="left")
            room = (max_length - pl.col("n_prompt_tokens")).clip(lower_bound=0)
            tokens, truncated = pl.min_horizontal("n_tokens", room), pl.col("n_tokens") > room
            frame = frame.with_columns(known.select(tokens.alias(f"{side}_tokens"), truncated.alias(f"{side}_truncated")))
    averaged = [f"{side}_{name}" for side in SIDES for name in ("overall", "correct", "tokens", "truncated")]
    overall = pl.col("delta_overall")
    quantiles = {f"delta_overall_q{percent}": overall.quantile(percent / 100, "linear") for percent in (10, 50, 90)}
    return frame.select(
        pl.col(*criteria, *averaged, "identical").mean(),
        n_pairs=pl.len(),
        delta_overall_sd=overall.std(ddof=0),
        negative=(overall < 0).mean(),
        **quantiles,
    ).row(0, named=True)


def _training(arm: PlannedArm, pairs: dict[str, Any]) -> dict[str, Any]:
    """``pairs`` (`_summary`) and what ``arm``'s steps read of them."""
    n = pairs["n_pairs"] * arm.n_examples
    passes = examples_read(n, arm.n_steps, arm.batch_size, arm.unit) / n
    tokens = sum(pairs[f"{side}_tokens"] for side in arm.reads)
    unread = {f"{side}_truncated": None for side in SIDES if side not in arm.reads}
    return {**pairs, **unread, "n_passes": passes, "n_training_tokens": passes * pairs["n_pairs"] * tokens}


def _written(predictions: Path) -> int:
    """Tokens that an evaluation wrote."""
    batches = read_batches(predictions, Predictions, ["item_id", "decoding", "sample", "n_tokens"])
    return sum(int(batch["n_tokens"].sum()) for batch in batches)


def _cost(cost: Cost | None, n_training: float, n_evaluation: float) -> dict[str, float | None]:
    """Hours of an arm's trainings and evaluations, and their price."""
    if cost is None:
        return {"training_hours": None, "evaluation_hours": None, "cost": None}
    training = n_training / cost.training_tokens_per_second / 3600
    evaluation = n_evaluation / cost.evaluation_tokens_per_second / 3600
    return {"training_hours": training, "evaluation_hours": evaluation, "cost": (training + evaluation) * cost.price_per_hour}


def answer_whatif(arms: pl.DataFrame, identical_pairs: float, truncated: float) -> list[str]:
    """What to look at before training ``arms`` (`WhatIf`); the shares are the gates at which training does not start."""
    both = pl.max_horizontal("chosen_truncated", "rejected_truncated")
    arms = arms.with_columns(arm=pl.Series(arm_names(arms), dtype=pl.String), truncated=both)
    smallest = arms.sort("n_pairs").row(0, named=True)
    lines = [
        f"Size: at least {smallest['n_pairs']:.0f} pairs (**{smallest['arm']}**). "
        + _these(arms.filter(pl.col("n_passes") > MANY_PASSES), f"Pairs are read more than {MANY_PASSES} times")
    ]
    gates = {
        "truncated": ("Truncation by max_length", "traces of a side", truncated),
        "identical": ("Equal texts on both sides", "pairs", identical_pairs),
    }
    for column, (title, unit, gate) in gates.items():
        if worst := arms.drop_nulls(column).sort(column, descending=True).head(1).to_dicts():
            above = _these(arms.filter(pl.col(column) > gate), f"Above the gate of {gate:.0%}, so training would not start")
            lines.append(f"{title}: at most {worst[0][column]:.1%} of {unit} (**{worst[0]['arm']}**). {above}")
        else:
            lines.append(f"{title}: unknown.")
    lines.append(_these(arms.filter(pl.col("delta_overall") <= 0), "Mean overall delta of 0 or less"))
    if predicted := arms.drop_nulls("predicted_gain").sort("predicted_gain").to_dicts():
        ends = [f"{row['predicted_gain']:+.1f} (**{row['arm']}**)" for row in (predicted[0], predicted[-1])]
        lines.append(f"Predicted gain: from {ends[0]} to {ends[1]}.")
    seeds, tokens = pl.col("n_seeds"), arms.select((pl.col("n_training_tokens") * pl.col("n_seeds")).sum()).item()
    total = f"Budget: {arms.select(seeds.sum()).item()} trainings of {len(arms)} arms read {tokens:.3g} completion tokens"
    if arms["cost"].null_count():
        lines.append(f"{total}; how long that takes and what it costs is unknown without `cost` in the configuration.")
    else:
        training, evaluation, cost = (arms[column].sum() for column in ("training_hours", "evaluation_hours", "cost"))
        lines.append(f"{total}: {training:.3g} hours, and {evaluation:.3g} hours of evaluations; cost {cost:,.2f}.")
    return lines


def _these(arms: pl.DataFrame, what: str) -> str:
    names = arms["arm"].to_list()
    rest = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return f"{what}: {'; '.join([*names[:SHOWN], *rest]) or 'none'}."
