"""Rule measure_shift."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.evaluate.shift import measure_shift
    from prefdelta.run.job import run_job

    run_job(measure_shift, snakemake)
