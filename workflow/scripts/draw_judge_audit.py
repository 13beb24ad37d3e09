"""Rule draw_judge_audit."""

import json

from prefdelta.findings.figures import draw_judge_audit
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_judge_audit(
            snakemake.input.table,
            snakemake.output.png,
            **json.loads(snakemake.params.spec),
        )
