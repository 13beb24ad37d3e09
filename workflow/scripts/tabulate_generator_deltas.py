"""Rule tabulate_generator_deltas."""

import json

from prefdelta.findings.generator_deltas import tabulate_generator_deltas
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_generator_deltas(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
