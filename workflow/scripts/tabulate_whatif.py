"""Rule tabulate_whatif."""

import json

from prefdelta.forecast.whatif import tabulate_whatif
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_whatif(
            snakemake.input.generator_deltas,
            snakemake.input.capability,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
