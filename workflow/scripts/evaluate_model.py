"""Rule evaluate_model."""

import json

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.evaluate.predictions import evaluate_model
    from prefdelta.run.job import job

    with job(snakemake.log[0], snakemake.resources.gpu):
        evaluate_model(
            snakemake.input.manifest,
            snakemake.input.suites,
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
