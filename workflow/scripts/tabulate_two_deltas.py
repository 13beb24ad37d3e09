"""Rule tabulate_two_deltas."""

from prefdelta.answers.two_deltas import tabulate_two_deltas
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_two_deltas, snakemake)
