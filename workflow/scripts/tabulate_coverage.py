"""Rule tabulate_coverage."""

import json

from prefdelta.audit.coverage import tabulate_coverage
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_coverage(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
