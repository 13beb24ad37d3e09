"""Rule tabulate_experiment."""

from prefdelta.findings.experiment import tabulate_experiment
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_experiment, snakemake)
