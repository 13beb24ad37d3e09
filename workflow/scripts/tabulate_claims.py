"""Rule tabulate_claims."""

import json

from prefdelta.findings.claims import tabulate_claims
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_claims(
            snakemake.input.regressions,
            snakemake.input.capability,
            snakemake.input.prediction,
            snakemake.input.judge_audit,
            snakemake.input.delta_correction,
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
