"""Rule tabulate_profile."""

from prefdelta.findings.profile import tabulate_profile
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_profile, snakemake)
