"""Rule tabulate_replication."""

from prefdelta.answers.replication import tabulate_replication
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_replication, snakemake)
