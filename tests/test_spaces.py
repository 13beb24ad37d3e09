"""A clone, its environment and its results under a path with spaces and quotation marks."""

import os
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TRAIN = "results/smoke/prompts/train.parquet"


@pytest.fixture
def folder(tmp_path):
    """An environment with the packages of this one, in a folder of an awkward name."""
    folder = tmp_path / """it's my "new" folder"""
    venv.create(folder / ".venv")
    (packages,) = (folder / ".venv").glob("lib/python*/site-packages")
    # By `addsitedir`, which reads the .pth file of the installed package, too.
    (packages / "these.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()))
    return folder


def test_jobs_run(folder):
    words = ["--snakefile", REPOSITORY / "Snakefile", "--configfile", REPOSITORY / "config/smoke.yaml", "--directory", folder]
    command = [
        folder / ".venv/bin/python",
        "-m",
        "snakemake",
        *words,
        "--cores",
        "1",
        "--",
        "results/smoke/prompts/train.parquet",
    ]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (folder / TRAIN).exists()


def test_make_hands_paths_on_whole(folder):
    shutil.copy(REPOSITORY / "Makefile", folder)
    (folder / "envs").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "envs/build.txt", "envs/torch.txt"):
        (folder / name).touch()
    programs = folder / ".venv/bin"
    for name in ("python", "snakemake"):  # they write down what they are given
        (programs / name).unlink(missing_ok=True)
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $# $EXECUTED" >> "$CALLS"\n')
        (programs / name).chmod(0o755)
    (programs / ".installed").touch()
    for target in ("results", "fuzz"):
        environment = {**os.environ, "CALLS": str(folder / target), "EXECUTED": ""}
        subprocess.run(["make", target], cwd=folder, env=environment, check=True, capture_output=True)
        assert "snakemake" in (folder / target).read_text()
    assert f"snakemake 5 {folder}/.executed\n" in (folder / "fuzz").read_text()
