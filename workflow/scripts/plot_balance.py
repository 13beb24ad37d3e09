"""Rule plot_balance."""

from prefdelta.audit.balance import plot_balance
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_balance, snakemake)
