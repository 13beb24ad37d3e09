"""Rule pretrain_model."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.microworld.pretrain import pretrain_model
    from prefdelta.run.job import run_job

    run_job(pretrain_model, snakemake)
