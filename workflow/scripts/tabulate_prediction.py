"""Rule tabulate_prediction."""

from prefdelta.forecast.prediction import tabulate_prediction
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_prediction, snakemake)
