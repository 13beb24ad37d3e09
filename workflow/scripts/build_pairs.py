"""Rule build_pairs."""

from prefdelta.pairs.build import build_pairs
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(build_pairs, snakemake)
