"""Rule export_cell."""

import json

from prefdelta.export.export import export_cell
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        export_cell(
            snakemake.input.pairs,
            snakemake.input.checkpoint,
            snakemake.input.evals,
            snakemake.input.base_evals,
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
