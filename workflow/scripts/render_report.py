"""Rule render_report."""

import json

from prefdelta.report.report import render_report
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_report(
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
