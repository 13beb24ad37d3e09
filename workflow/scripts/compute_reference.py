"""Rule compute_reference."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.run.job import run_job
    from prefdelta.train.reference import compute_reference

    run_job(compute_reference, snakemake)
