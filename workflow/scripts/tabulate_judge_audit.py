"""Rule tabulate_judge_audit."""

import json

from prefdelta.job import job
from prefdelta.judge_audit import tabulate_judge_audit

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_judge_audit(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
