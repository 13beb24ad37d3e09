"""Rule build_pairs."""

import json

from prefdelta.pairs.build import build_pairs
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        build_pairs(
            snakemake.input.chosen_traces,
            snakemake.input.chosen_ratings,
            snakemake.input.rejected_traces,
            snakemake.input.rejected_ratings,
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
