"""Rule tabulate_claims."""

from prefdelta.answers.claims import tabulate_claims
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_claims, snakemake)
