"""Rule browse_pairs."""

from prefdelta.report.browse import browse_pairs
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(browse_pairs, snakemake)
