"""The generator-level delta: the gap between two generators on the same prompts."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import pandera.polars as pa
import polars as pl

from prefdelta.findings.settings import GeneratorDeltasSettings
from prefdelta.measure.intervals import mean_interval
from prefdelta.measure.settings import ArmSettings
from prefdelta.pairs.build import prompt_ranges, rated, sum_ratings
from prefdelta.tables.check import Table
from prefdelta.tables.io import judge_dimensions, read_batches, read_dimensions, rows_to_table, write_result_table
from prefdelta.tables.stages import Traces


class GeneratorDeltas(Table):
    """Generator-level delta of every (chosen, rejected) on the same prompts: in accuracy (points), or in mean rating.

    ``quantity`` is accuracy, or a criterion of the judge; there is no accuracy where no prompt has a right answer.
    ``n_ungraded``: traces of both that could not be graded, and so are left out of accuracy (of ratings none is).
    """

    chosen: str
    rejected: str
    judge: str
    quantity: str
    chosen_mean: float
    rejected_mean: float
    estimate: float
    ci_low: float
    ci_high: float
    n_prompts: int = pa.Field(gt=0)
    n_ungraded: int = pa.Field(ge=0)


def tabulate_generator_deltas(
    traces: dict[str, Path], ratings: dict[tuple[str, str], Path], table: Path, *, settings: GeneratorDeltasSettings
) -> None:
    """Writes the `GeneratorDeltas`: accuracy, and each mean rating. ``traces`` are by draw, ``ratings`` by (judge, draw)."""
    accuracies = {draw: accuracy_by_prompt(file) for draw, file in traces.items()}
    rows = []
    for judge, generators in settings.sides.items():
        by_prompt = {
            generator: pooled(
                [accuracies[draw].join(_ratings_by_prompt(traces[draw], ratings[judge, draw]), on="prompt_id") for draw in draws]
            )
            for generator, draws in generators.items()
        }
        criteria = judge_dimensions(ratings, judge).criteria
        for chosen, rejected in permutations(by_prompt, 2):
            both = on_same_prompts(by_prompt[chosen], by_prompt[rejected])
            ungraded = sum(int(accuracies[draw]["ungraded"].sum()) for side in (chosen, rejected) for draw in generators[side])
            for quantity in ("accuracy", *criteria):
                scores = both.select(a=quantity, b=f"{quantity}_rejected").drop_nulls()
                if scores.is_empty():  # prompts without right answers have no accuracy
                    continue
                differences = (scores["a"] - scores["b"]).to_numpy()
                rows.append(
                    {
                        "chosen": chosen,
                        "rejected": rejected,
                        "judge": judge,
                        "quantity": quantity,
                        "chosen_mean": scores["a"].mean(),
                        "rejected_mean": scores["b"].mean(),
                        **vars(mean_interval(differences, settings.bootstrap.seed, settings.bootstrap.n_resamples)),
                        "n_prompts": len(scores),
                        "n_ungraded": ungraded if quantity == "accuracy" else 0,
                    }
                )
    write_result_table(rows_to_table(rows, GeneratorDeltas), GeneratorDeltas, table)


def accuracy_deltas(
    traces: Mapping[str, Path], draws: Mapping[str, Sequence[str]], arms: Sequence[ArmSettings]
) -> dict[tuple[str, str], float | None]:
    """(chosen, rejected) of ``arms`` -> their delta in accuracy (points), as `tabulate_generator_deltas` has it; else None.

    ``traces`` are by draw; ``draws``: generator -> its draws.
    """
    known = {name: pooled([accuracy_by_prompt(traces[draw]) for draw in several]) for name, several in draws.items()}
    found: dict[tuple[str, str], float | None] = {}
    for chosen, rejected in dict.fromkeys((arm.chosen, arm.rejected) for arm in arms):
        both = on_same_prompts(known[chosen], known[rejected])
        differences = (both["accuracy"] - both["accuracy_rejected"]).drop_nulls().to_numpy()
        found[chosen, rejected] = float(differences.mean()) if len(differences) else None
    return found


def accuracy_by_prompt(traces: Path) -> pl.DataFrame:
    """Mean accuracy (percent) of the graded traces of each prompt, null where there is none, and ``ungraded``, their number."""
    right, graded = pl.col("correct").sum(), pl.col("correct").count().alias("graded")
    counts = [
        batch.group_by("prompt_id").agg(right, graded, ungraded=pl.col("correct").null_count())
        for batch in read_batches(traces, Traces, ["trace_id", "prompt_id", "correct"])
    ]
    sums = pl.concat(counts).group_by("prompt_id").agg(pl.all().sum())
    accuracy = pl.when(pl.col("graded") > 0).then(100 * pl.col("correct") / pl.col("graded"))
    return sums.select("prompt_id", accuracy=accuracy, ungraded="ungraded")


def _ratings_by_prompt(traces: Path, ratings: Path) -> pl.DataFrame:
    with TemporaryDirectory() as folder:
        sums = Path(folder, "sums.parquet")
        sum_ratings(ratings, sums)
        of = read_dimensions(ratings)
        means = pl.col(of.criteria).mean()
        parts = [rated(traces, sums, within, of).group_by("prompt_id").agg(means) for within in prompt_ranges(traces)]
    return pl.concat(parts)


def pooled(draws: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Means of a generator on each prompt over those of its draws, which count alike."""
    return pl.concat(draws).group_by("prompt_id").mean().sort("prompt_id")


def on_same_prompts(chosen: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Both sides' means, where both have some; columns of ``rejected`` end with ``_rejected``."""
    return chosen.join(rejected, on="prompt_id", suffix="_rejected").sort("prompt_id")
