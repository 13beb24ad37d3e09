"""Rule make_prompts."""

import json

from prefdelta.generate.prompts import make_prompts
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        make_prompts(
            snakemake.input,
            snakemake.output.prompts,
            snakemake.output.dropped,
            **json.loads(snakemake.params.spec),
        )
