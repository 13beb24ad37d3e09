"""Rule build_pairs."""

import json

from prefdelta.job import job
from prefdelta.pairs import build_pairs

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
