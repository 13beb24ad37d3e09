"""Coverage of the judge: how many ratings are missing, and why."""

import json
from pathlib import Path

from prefdelta import paths
from prefdelta.rubric import DIMENSIONS
from prefdelta.tables import Coverage, Ratings, read_table, rows_to_table, write_result_table


def tabulate_coverage(output: Path | str, *, study: str, generators: list[str], judges: list[str]) -> None:
    """Writes the `Coverage`: how many ratings were asked and are missing, and why."""
    rows = []
    for judge in judges:
        for generator in generators:
            ratings = read_table(paths.RATINGS.format(study=study, judge=judge, generator=generator), Ratings)
            for dimension in DIMENSIONS:
                part = ratings.filter(dimension=dimension)
                reasons = dict(part["reason"].drop_nulls().value_counts(sort=True).iter_rows())
                rows.append(
                    {
                        "judge": judge,
                        "generator": generator,
                        "dimension": dimension,
                        "n_asked": len(part),
                        "n_missing": part["rating"].null_count(),
                        "reasons": json.dumps(reasons),
                    }
                )
    write_result_table(rows_to_table(rows, Coverage), Coverage, output)
