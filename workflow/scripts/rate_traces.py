"""Rule rate_traces."""

from prefdelta.judge.ratings import rate_traces
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(rate_traces, snakemake)
