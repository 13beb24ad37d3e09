"""Rule draw_balance."""

from prefdelta.figures import draw_balance
from prefdelta.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw_balance(
            snakemake.input.table,
            snakemake.output.png,
        )
