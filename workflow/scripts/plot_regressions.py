"""Rule plot_regressions."""

from prefdelta.answers.regressions import plot_regressions
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_regressions, snakemake)
