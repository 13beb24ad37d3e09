"""Rule tabulate_judge_audit."""

import json

from prefdelta.audit.judge_audit import tabulate_judge_audit
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_judge_audit(
            snakemake.output.csv,
            **json.loads(snakemake.params.spec),
        )
