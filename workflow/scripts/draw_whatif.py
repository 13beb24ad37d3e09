"""Rule draw_whatif."""

import json

from prefdelta.findings.figures import draw_whatif
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_whatif(
            snakemake.input.table,
            snakemake.input.overlap,
            snakemake.output.png,
            **json.loads(snakemake.params.spec),
        )
