"""Rule plot_replication."""

from prefdelta.answers.replication_figure import plot_replication
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_replication, snakemake)
