"""Rule render_report."""

import json

from prefdelta.job import job
from prefdelta.report import render_report

if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_report(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
