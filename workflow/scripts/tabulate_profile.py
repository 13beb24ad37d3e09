"""Rule tabulate_profile."""

import json

from prefdelta.job import job
from prefdelta.results import tabulate_profile

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_profile(
            snakemake.input.generator_deltas,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
