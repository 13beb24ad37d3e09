"""What a person types: which files make the study, and names of what is wanted. Dry runs of the real workflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def dry_run(tmp_path):
    """Runs ``snakemake --dry-run`` in a folder with nothing but the workflow; gives its exit code and what it printed."""
    for name in ("Snakefile", "rules", "workflow", "config", "envs", "profiles"):
        (tmp_path / name).symlink_to(REPOSITORY / name)

    def run(*arguments):
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


MODEL = "models:\n  small: {family: qwen3, hidden_size: 32, layers: 1, heads: 1, authors: {}, steps: 1, learning_rate: 0.1}\n"


@pytest.mark.parametrize(
    ("text", "options", "missing"),
    [
        (MODEL, [], "study, prompts, suites, sampling, generators, judges, policies, methods, evaluation, experiments"),
        ("run: {batch_size: 7}\n", ["--config", "study=mine"], "models, prompts, suites, "),
    ],
)
def test_of_the_default_study_nothing_is_added_to_a_file_that_is_named(text, options, missing, dry_run, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    code, output = dry_run("--configfile", "mine.yaml", *options)
    assert code == 1 and "Traceback" not in output
    assert f"\nmine.yaml lacks {missing}" in output and "--configfile STUDY.yaml mine.yaml" in output
    assert output.count("lacks") == 1 and "required" not in output


def test_the_default_study_is_changed_by_the_command_line_and_any_study_by_a_second_file(dry_run, tmp_path):
    (tmp_path / "machine.yaml").write_text("run: {batch_size: 7}\n")
    for options in (["--config", "study=smoke"], ["--configfile", "config/smoke.yaml", "machine.yaml"]):
        code, output = dry_run(*options, "--", "results/smoke/prompts/in_domain.parquet")
        assert code == 0, output
        assert "make_items" in output
