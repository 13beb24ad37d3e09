"""Rule fetch_model."""

import json

from prefdelta.fetch import fetch_model
from prefdelta.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_model(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
