"""Rule train_policy."""

import json

from prefdelta.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.job import job
    from prefdelta.train import train_policy

    with job(snakemake.log[0], snakemake.resources.gpu):
        train_policy(
            snakemake.input.pairs,
            snakemake.input.base,
            {name.removesuffix("_reference"): file for name, file in snakemake.input.items() if name.endswith("_reference")},
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
