"""What a person types: which files make the study, and names of what is wanted. Dry runs of the real workflow."""

import os
import re
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
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", *arguments]
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


CELL = "policy/dpo/oracle/qwen-l_vs_qwen-s/full/seed0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/smoke/repotr.html"], "no file that study smoke makes.*'results/smoke/report.html'"),
        (["results/smoke/trcaes/qwen-l.parqet"], "no file that study smoke makes.*'results/smoke/traces/qwen-l.parquet'"),
        (["results/smoke/traces/qwen-ll.parquet"], "unknown generator 'qwen-ll' in study smoke; choose from .*'qwen-l'"),
        ([f"results/smoke/evals/{CELL}.parquet".replace("dpo", "dop")], "unknown method 'dop'.*'dpo'"),
        (["results/smoke/tables/capabilty.csv"], "unknown experiment 'capabilty'.*'results/smoke/tables/capability.csv'"),
        (["results/smoky/report.html"], "unknown study 'smoky'.*'smoke'"),
        (["al"], "and no rule.*'all'"),
        (["--until", "evaluate_checkpont"], "and no rule.*'evaluate_checkpoint'"),
        (["--forcerun", "results/smoke/reprot.html"], "no file .*'results/smoke/report.html'"),
    ],
)
def test_a_typo_in_what_is_wanted_is_one_line_with_the_nearest_name(arguments, message, dry_run):
    code, output = dry_run(*arguments, "--configfile", "config/smoke.yaml")
    assert code == 1
    assert not any(word in output for word in ("Traceback", "Exception", "Building DAG"))
    (line,) = [line for line in output.splitlines() if "did you mean" in line]
    assert re.search(message, line)


@pytest.mark.parametrize("name", [f"results/smoke/export/{CELL}/", "results/smoke/logs/traces/qwen-l.log", "all"])
def test_what_can_be_made_can_be_asked_for(name, dry_run):
    code, output = dry_run(name, "--configfile", "config/smoke.yaml")
    assert code == 0, output


def test_what_another_study_must_make_first_is_told_without_a_traceback(dry_run):
    code, output = dry_run("--configfile", "config/smoke.yaml", "--config", "predictor=results/other/tables/predictor.json")
    assert code == 1 and "Traceback" not in output and "Exception" not in output
    assert "\nresults/other/tables/predictor.json is missing: another study makes it" in output
