"""Rule make_prompts."""

import json

from prefdelta.job import job
from prefdelta.prompts import make_prompts

if __name__ == "__main__":
    with job(snakemake.log[0]):
        make_prompts(
            snakemake.input,
            snakemake.output.prompts,
            snakemake.output.dropped,
            **json.loads(snakemake.params.spec),
        )
