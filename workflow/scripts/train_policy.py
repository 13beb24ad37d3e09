"""Rule train_policy."""

import json

from prefdelta.job import job
from prefdelta.train import train_policy

if __name__ == "__main__":
    with job(snakemake.log[0]):
        train_policy(
            snakemake.input.pairs,
            snakemake.input.base,
            {"chosen": snakemake.input.chosen_reference, "rejected": snakemake.input.rejected_reference},
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
