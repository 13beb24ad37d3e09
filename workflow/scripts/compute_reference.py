"""Rule compute_reference."""

import json

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.run.job import job
    from prefdelta.train.reference import compute_reference

    with job(snakemake.log[0], snakemake.resources.gpu):
        compute_reference(
            snakemake.input.traces,
            snakemake.input.manifest,
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
