"""Rule sample_traces."""

import json

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.generate.traces import sample_traces
    from prefdelta.run.job import job

    with job(snakemake.log[0], snakemake.resources.gpu):
        sample_traces(
            snakemake.input.prompts,
            snakemake.input.manifest[0] if snakemake.input.manifest else None,
            snakemake.output[0],
            snakemake.log[0],
            **json.loads(snakemake.params.spec),
            threads=snakemake.threads,
        )
