"""Rule plot_profile."""

from prefdelta.findings.profile import plot_profile
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_profile, snakemake)
