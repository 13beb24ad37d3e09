"""Rule tabulate_experiment."""

import json

from prefdelta.job import job
from prefdelta.results import tabulate_experiment

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_experiment(
            snakemake.input.generator_deltas,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
