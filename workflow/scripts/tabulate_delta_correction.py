"""Rule tabulate_delta_correction."""

import json

from prefdelta.audit.delta_correction import tabulate_delta_correction
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_delta_correction(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
