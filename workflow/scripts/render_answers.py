"""Rule render_answers."""

import json

from prefdelta.report.answers_page import render_answers
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_answers(
            snakemake.input.claims,
            snakemake.output[0],
            **json.loads(snakemake.params.spec),
        )
