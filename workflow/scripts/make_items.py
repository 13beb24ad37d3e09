"""Rule make_items."""

import json

from prefdelta.generate.prompts import make_items
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        make_items(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
