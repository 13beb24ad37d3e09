"""Rule fetch_model."""

from prefdelta.checkpoints.fetch import fetch_model
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(fetch_model, snakemake)
