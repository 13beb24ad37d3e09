"""Rule tabulate_profile."""

import json

from prefdelta.findings.experiment import tabulate_profile
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_profile(
            snakemake.input.generator_deltas,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
