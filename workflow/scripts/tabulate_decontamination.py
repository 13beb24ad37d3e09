"""Rule tabulate_decontamination."""

from prefdelta.audit.decontamination import tabulate_decontamination
from prefdelta.run.job import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tabulate_decontamination(snakemake.input.prompts, snakemake.input.dropped, snakemake.output.csv)
