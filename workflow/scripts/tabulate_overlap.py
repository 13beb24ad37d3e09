"""Rule tabulate_overlap."""

import json

from prefdelta.forecast.overlap import tabulate_overlap
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_overlap(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
