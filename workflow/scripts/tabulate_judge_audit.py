"""Rule tabulate_judge_audit."""

from prefdelta.audit.judge_audit import tabulate_judge_audit
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(tabulate_judge_audit, snakemake)
