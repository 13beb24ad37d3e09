"""Rule pretrain_model."""

import json

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.microworld.pretrain import pretrain_model
    from prefdelta.run.job import job

    with job(snakemake.log[0]):
        pretrain_model(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
