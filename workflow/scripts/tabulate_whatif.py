"""Rule tabulate_whatif."""

from prefdelta.forecast.whatif import tabulate_whatif
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_whatif, snakemake)
