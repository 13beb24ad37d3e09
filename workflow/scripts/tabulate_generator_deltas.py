"""Rule tabulate_generator_deltas."""

from prefdelta.findings.generator_deltas import tabulate_generator_deltas
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_generator_deltas, snakemake)
