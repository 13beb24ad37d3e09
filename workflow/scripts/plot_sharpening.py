"""Rule plot_sharpening."""

from prefdelta.findings.sharpening_figure import plot_sharpening
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_sharpening, snakemake)
