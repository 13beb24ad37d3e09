"""Rule plot_recipes."""

from prefdelta.findings.recipes import plot_recipes
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_recipes, snakemake)
