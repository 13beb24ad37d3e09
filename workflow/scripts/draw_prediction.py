"""Rule draw_prediction."""

import json

from prefdelta.findings.figures import draw_prediction
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_prediction(
            snakemake.input.table,
            snakemake.input.arms,
            snakemake.output.png,
            **json.loads(snakemake.params.spec),
        )
