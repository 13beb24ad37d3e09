"""Rule tabulate_regressions."""

import json

from prefdelta.findings.regressions import tabulate_regressions
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_regressions(
            snakemake.input.generator_deltas,
            snakemake.input.whatif,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
