"""Rule tabulate_regressions."""

from prefdelta.answers.regressions import tabulate_regressions
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_regressions, snakemake)
