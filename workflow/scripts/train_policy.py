"""Rule train_policy."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.run.job import run_job
    from prefdelta.train.policy import train_policy

    run_job(train_policy, snakemake)
