"""Rule rate_traces."""

import json

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.judge.ratings import rate_traces
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.resources.gpu):
        rate_traces(
            snakemake.input.traces,
            snakemake.output[0],
            snakemake.log[0],
            checkpoint=checked_folder(snakemake.input.manifest[0]) if snakemake.input.manifest else None,
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
