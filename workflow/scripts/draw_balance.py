"""Rule draw_balance."""

from prefdelta.findings.figures import draw_balance
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_balance(
            snakemake.input.table,
            snakemake.output.png,
        )
