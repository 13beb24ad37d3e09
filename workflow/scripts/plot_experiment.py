"""Rule plot_experiment."""

from prefdelta.findings.experiment_figures import plot_experiment
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_experiment, snakemake)
