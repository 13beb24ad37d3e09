"""Rule evaluate_temperatures."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.evaluate.predictions import evaluate_temperatures
    from prefdelta.run.job import run_job

    run_job(evaluate_temperatures, snakemake)
