"""Rule evaluate_model."""

import json

from prefdelta.evaluate import evaluate_model
from prefdelta.job import job

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.resources.gpu):
        evaluate_model(
            snakemake.input.manifest,
            snakemake.input.suites,
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
