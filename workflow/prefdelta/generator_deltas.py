"""The generator-level delta: the gap between two generators on the same prompts."""

from pathlib import Path

import polars as pl

from prefdelta import paths
from prefdelta.pairs import mean_ratings
from prefdelta.rubric import CRITERIA
from prefdelta.statistics import mean_interval
from prefdelta.tables import GeneratorDeltas, Ratings, Traces, read_table, rows_to_table, write_result_table


def tabulate_generator_deltas(
    output: Path | str, *, study: str, generators: list[str], judges: list[str], n_resamples: int, seed: int
) -> None:
    """Writes the generator-level delta of every (chosen, rejected) on the same prompts: accuracy, and each mean rating."""
    rows = []
    for judge in judges:
        by_prompt: dict[str, pl.DataFrame] = {}
        for generator in generators:
            traces = read_table(paths.TRACES.format(study=study, generator=generator), Traces)
            ratings = read_table(paths.RATINGS.format(study=study, judge=judge, generator=generator), Ratings)
            by_prompt[generator] = (
                traces.join(mean_ratings(ratings.lazy()).collect(), on="trace_id", how="left")
                .group_by("prompt_id")
                .agg(accuracy=100 * pl.col("correct").mean(), **{name: pl.col(name).mean() for name in CRITERIA})
                .sort("prompt_id")
            )
        for chosen, better in by_prompt.items():
            for rejected, worse in by_prompt.items():
                if chosen == rejected:
                    continue
                both = better.join(worse, on="prompt_id", suffix="_rejected").sort("prompt_id")
                for quantity in ("accuracy", *CRITERIA):
                    sides = both.select(a=quantity, b=f"{quantity}_rejected").drop_nulls()
                    interval = mean_interval((sides["a"] - sides["b"]).to_numpy(), seed, n_resamples)
                    rows.append(
                        {
                            "chosen": chosen,
                            "rejected": rejected,
                            "judge": judge,
                            "quantity": quantity,
                            "chosen_mean": sides["a"].mean(),
                            "rejected_mean": sides["b"].mean(),
                            **vars(interval),
                            "n_prompts": len(sides),
                        }
                    )
    write_result_table(rows_to_table(rows, GeneratorDeltas), GeneratorDeltas, output)
