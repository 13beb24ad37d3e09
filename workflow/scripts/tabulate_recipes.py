"""Rule tabulate_recipes."""

from prefdelta.findings.recipes import tabulate_recipes
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_recipes, snakemake)
