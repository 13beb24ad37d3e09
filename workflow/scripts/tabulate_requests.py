"""Rule tabulate_requests."""

from prefdelta.forecast.requests import tabulate_requests
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_requests, snakemake)
