"""Rule tabulate_capability."""

import json

from prefdelta.findings.capability import tabulate_capability
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_capability(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
