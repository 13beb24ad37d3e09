"""Rule tabulate_overlap."""

import json

from prefdelta.job import job
from prefdelta.overlap import tabulate_overlap

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_overlap(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
