"""Rule export_cell."""

from prefdelta.export.export import export_cell
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(export_cell, snakemake)
