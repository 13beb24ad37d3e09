"""Rule tabulate_overlap."""

from prefdelta.forecast.overlap import tabulate_overlap
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_overlap, snakemake)
