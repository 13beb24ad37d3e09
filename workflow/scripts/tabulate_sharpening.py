"""Rule tabulate_sharpening."""

from prefdelta.findings.sharpening import tabulate_sharpening
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_sharpening, snakemake)
