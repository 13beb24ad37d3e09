"""Rule make_items."""

import json

from prefdelta.job import job
from prefdelta.prompts import make_items

if __name__ == "__main__":
    with job(snakemake.log[0]):
        make_items(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
