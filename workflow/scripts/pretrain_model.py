"""Rule pretrain_model."""

import json

from prefdelta.job import job
from prefdelta.microworld.pretrain import pretrain_model

if __name__ == "__main__":
    with job(snakemake.log[0]):
        pretrain_model(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
