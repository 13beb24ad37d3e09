"""Rule make_prompts."""

from prefdelta.generate.prompts import make_prompts
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(make_prompts, snakemake)
