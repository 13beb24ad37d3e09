"""Rule tabulate_coverage."""

import json

from prefdelta.coverage import tabulate_coverage
from prefdelta.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_coverage(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
