"""Rule tabulate_delta_correction."""

from prefdelta.audit.delta_correction import tabulate_delta_correction
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_delta_correction, snakemake)
