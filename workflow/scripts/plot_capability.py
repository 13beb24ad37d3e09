"""Rule plot_capability."""

from prefdelta.findings.capability import plot_capability
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_capability, snakemake)
