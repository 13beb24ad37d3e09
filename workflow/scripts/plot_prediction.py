"""Rule plot_prediction."""

from prefdelta.forecast.prediction_figure import plot_prediction
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_prediction, snakemake)
