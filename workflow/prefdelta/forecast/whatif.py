"""What if: everything that is known of an experiment's arms before any of them is trained."""

from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from prefdelta.forecast.prediction import predict
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA
from prefdelta.study.recipe import examples_read
from prefdelta.tables.findings import Capability, GeneratorDeltas, WhatIf
from prefdelta.tables.io import ARM, read_batches, read_result_csv, read_table, rows_to_table, write_result_table
from prefdelta.tables.stages import Pairs, Predictions, References

SIDES = ("chosen", "rejected")


def tabulate_whatif(
    generator_deltas: Path | str,
    capability: Path | str,
    output: Path | str,
    *,
    study: str,
    suite: str,
    arms: list[dict[str, Any]],
    cost: dict[str, Any] | None,
    predictor: str | None,
) -> None:
    """Writes `WhatIf`: size, tokens, deltas, truncation, cost and predicted gain on ``suite`` of each of ``arms``.

    An arm has its words, ``experiments``, ``cells``, ``n_steps``, what its recipe says (``trainer``, ``batch_size``,
    ``n_examples``, ``unit``, ``max_length``), ``reads`` (the sides that training reads), and ``has_lengths``: whether its traces
    are among the policy's references, which know their lengths. ``cost`` (`config.Cost`) turns tokens into hours and money.
    Without a ``predictor`` (file) no gain is predicted. Raises TableError, PredictorError.
    """
    deltas = {
        (row["judge"], row["chosen"], row["rejected"], row["quantity"]): row["estimate"]
        for row in read_result_csv(generator_deltas, GeneratorDeltas).iter_rows(named=True)
    }
    able = read_result_csv(capability, Capability).filter(pl.col("task").is_null(), suite=suite, decoding="sampled")
    base = dict(able.select("model", "estimate").iter_rows())
    written = {policy: _written(study, policy) for policy in dict.fromkeys(arm["policy"] for arm in arms)}
    summary = cache(_summary)  # arms share pair sets
    rows = []
    for arm in arms:
        cells = [_training(arm, summary(*_files(arm, cell), arm["max_length"])) for cell in arm["cells"]]
        means = pl.DataFrame(cells).mean().row(0, named=True)
        sides = arm["judge"], arm["chosen"], arm["rejected"]
        rows.append(
            {
                **{word: arm[word] for word in [*ARM, "trainer", "n_steps"]},
                "experiments": ", ".join(arm["experiments"]),
                "n_seeds": len(cells),
                **means,
                "n_evaluation_tokens": written[arm["policy"]],
                "generator_delta": deltas[*sides, "accuracy"],
                "generator_delta_overall": deltas[*sides, "overall"],
                "base_accuracy": base.get(arm["policy"]),
                **_cost(cost, means["n_training_tokens"] * len(cells), written[arm["policy"]] * len(cells)),
            }
        )
    table = rows_to_table(rows, WhatIf)
    if predictor:
        table = table.with_columns(predict(predictor, table).get_columns())
    write_result_table(table, WhatIf, output)


def _files(arm: dict[str, Any], cell: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """A cell's pairs, and the references of both of its generators."""
    references = [paths.REFERENCE.format(**cell, generator=cell[side]) for side in SIDES] if arm["has_lengths"] else []
    return paths.PAIRS.format(**cell), tuple(references)


def _summary(pairs: str, references: tuple[str, ...], max_length: int) -> dict[str, Any]:
    """What a pair set is on average; without ``references``, tokens are as the generators count them and not cut."""
    criteria = [f"delta_{criterion}" for criterion in CRITERIA]
    by_side = [f"{side}_{name}" for side in SIDES for name in ("trace_id", "overall", "correct", "tokens")]
    # Texts are compared batch by batch, so that they are never in memory all at once.
    batches = read_batches(pairs, Pairs, ["pair_id", *SIDES, *by_side, *criteria])
    frame = pl.concat([batch.with_columns(identical=pl.col("chosen") == pl.col("rejected")).drop(*SIDES) for batch in batches])
    frame = frame.with_columns(pl.lit(None, pl.Boolean).alias(f"{side}_truncated") for side in SIDES)
    if references:
        # Of a flipped pair, the chosen trace is in the other generator's table; a trace has a row for each length limit.
        lengths = pl.concat([read_table(file, References) for file in references]).unique("trace_id")
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


def _training(arm: dict[str, Any], pairs: dict[str, Any]) -> dict[str, Any]:
    """``pairs`` (`_summary`) and what ``arm``'s steps read of them."""
    n = pairs["n_pairs"] * arm["n_examples"]
    passes = examples_read(n, arm["n_steps"], arm["batch_size"], arm["unit"]) / n
    tokens = sum(pairs[f"{side}_tokens"] for side in arm["reads"])
    unread = {f"{side}_truncated": None for side in SIDES if side not in arm["reads"]}
    return {**pairs, **unread, "n_passes": passes, "n_training_tokens": passes * pairs["n_pairs"] * tokens}


def _written(study: str, policy: str) -> int:
    """Tokens that the evaluation of an untuned policy wrote."""
    key = ["item_id", "decoding", "sample"]
    batches = read_batches(paths.EVAL_BASE.format(study=study, model=policy), Predictions, [*key, "n_tokens"])
    return sum(int(batch["n_tokens"].sum()) for batch in batches)


def _cost(cost: dict[str, Any] | None, n_training: float, n_evaluation: float) -> dict[str, float | None]:
    """Hours of an arm's trainings and evaluations, and their price."""
    if cost is None:
        return {"training_hours": None, "evaluation_hours": None, "cost": None}
    training = n_training / cost["training_tokens_per_second"] / 3600
    evaluation = n_evaluation / cost["evaluation_tokens_per_second"] / 3600
    return {"training_hours": training, "evaluation_hours": evaluation, "cost": (training + evaluation) * cost["price_per_hour"]}
