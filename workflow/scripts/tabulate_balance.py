"""Rule tabulate_balance."""

from prefdelta.audit.balance import tabulate_balance
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_balance, snakemake)
