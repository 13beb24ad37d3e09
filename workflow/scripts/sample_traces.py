"""Rule sample_traces."""

from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    run_warm()  # before what takes long to import
    from prefdelta.generate.traces import sample_traces
    from prefdelta.run.job import run_job

    run_job(sample_traces, snakemake)
