"""Rule plot_whatif."""

from prefdelta.forecast.whatif_figure import plot_whatif
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_whatif, snakemake)
