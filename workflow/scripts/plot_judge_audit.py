"""Rule plot_judge_audit."""

from prefdelta.audit.judge_audit_figure import plot_judge_audit
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(plot_judge_audit, snakemake)
