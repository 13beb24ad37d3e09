"""Rule tabulate_decontamination."""

from prefdelta.audit.decontamination import tabulate_decontamination
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_decontamination, snakemake)
