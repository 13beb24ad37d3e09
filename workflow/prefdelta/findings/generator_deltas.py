"""The generator-level delta: the gap between two generators on the same prompts."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from prefdelta.findings.intervals import mean_interval
from prefdelta.pairs.build import prompt_ranges, rated, sum_ratings
from prefdelta.study import paths
from prefdelta.study.dimensions import CRITERIA
from prefdelta.tables.findings import GeneratorDeltas
from prefdelta.tables.io import rows_to_table, write_result_table


def _by_prompt(traces: str, ratings: str) -> pl.DataFrame:
    """Mean accuracy (percent) and mean ratings of each prompt."""
    means = [(100 * pl.col("correct").mean()).alias("accuracy"), pl.col(CRITERIA).mean()]
    with TemporaryDirectory() as folder:
        sums = Path(folder, "sums.parquet")
        sum_ratings(ratings, sums)
        parts = [rated(traces, sums, within).group_by("prompt_id").agg(means) for within in prompt_ranges(traces)]
    return pl.concat(parts)


def tabulate_generator_deltas(
    output: Path | str, *, study: str, sides: dict[str, dict[str, list[str]]], n_resamples: int, seed: int
) -> None:
    """Writes the generator-level delta of every (chosen, rejected) on the same prompts: accuracy, and each mean rating.

    ``sides``: judge -> generator -> its draws, which are pooled.
    """
    rows = []
    for judge, generators in sides.items():
        by_prompt: dict[str, pl.DataFrame] = {}
        for generator, drawn in generators.items():
            parts = []
            for draw in drawn:
                ratings = paths.RATINGS.format(study=study, judge=judge, generator=draw)
                parts.append(_by_prompt(paths.TRACES.format(study=study, generator=draw), ratings))
            by_prompt[generator] = pl.concat(parts).group_by("prompt_id").mean().sort("prompt_id")
        for chosen, better in by_prompt.items():
            for rejected, worse in by_prompt.items():
                if chosen == rejected:
                    continue
                both = better.join(worse, on="prompt_id", suffix="_rejected").sort("prompt_id")
                for quantity in ("accuracy", *CRITERIA):
                    scores = both.select(a=quantity, b=f"{quantity}_rejected").drop_nulls()
                    interval = mean_interval((scores["a"] - scores["b"]).to_numpy(), seed, n_resamples)
                    rows.append(
                        {
                            "chosen": chosen,
                            "rejected": rejected,
                            "judge": judge,
                            "quantity": quantity,
                            "chosen_mean": scores["a"].mean(),
                            "rejected_mean": scores["b"].mean(),
                            **vars(interval),
                            "n_prompts": len(scores),
                        }
                    )
    write_result_table(rows_to_table(rows, GeneratorDeltas), GeneratorDeltas, output)
