"""Rule browse_pairs."""

from prefdelta.report.browse import browse_pairs
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        browse_pairs(
            snakemake.input.pairs,
            snakemake.output[0],
        )
