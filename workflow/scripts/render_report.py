"""Rule render_report."""

from prefdelta.report.report import render_report
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(render_report, snakemake)
