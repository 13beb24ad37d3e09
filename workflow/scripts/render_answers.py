"""Rule render_answers."""

from prefdelta.answers.answers_page import render_answers
from prefdelta.run.job import run_job

if __name__ == "__main__":
    run_job(render_answers, snakemake)
