"""Rule tabulate_capability."""

from prefdelta.findings.capability import tabulate_capability
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_capability, snakemake)
