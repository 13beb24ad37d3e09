"""Rule rate_traces."""

import json

from prefdelta.job import job
from prefdelta.judge import rate_traces

if __name__ == "__main__":
    with job(snakemake.log[0]):
        rate_traces(
            snakemake.input.traces,
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
        )
