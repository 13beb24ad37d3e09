"""Rule draw_regressions."""

import json

from prefdelta.findings.figures import draw_regressions
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_regressions(
            snakemake.input.table,
            snakemake.output.png,
            **json.loads(snakemake.params.spec),
        )
