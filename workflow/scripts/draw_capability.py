"""Rule draw_capability."""

import json

from prefdelta.findings.figures import draw_capability
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_capability(
            snakemake.input.table,
            snakemake.output.png,
            **json.loads(snakemake.params.spec),
        )
