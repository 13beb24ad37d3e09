"""Rule train_policy."""

import json

from prefdelta.job import job
from prefdelta.train import train_policy

if __name__ == "__main__":
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
