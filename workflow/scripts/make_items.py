"""Rule make_items."""

from prefdelta.generate.prompts import make_items
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(make_items, snakemake)
