"""Rule fetch_model."""

import json

from prefdelta.checkpoints.fetch import fetch_model
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_model(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
