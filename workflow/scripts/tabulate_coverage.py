"""Rule tabulate_coverage."""

from prefdelta.audit.coverage import tabulate_coverage
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_coverage, snakemake)
