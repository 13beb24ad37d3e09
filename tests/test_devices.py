"""GPUs of jobs, on a machine whose nvidia-smi is a script."""

import os
import shutil
import subprocess
import sys

import pytest

from prefdelta.run.devices import DeviceError, any_here, claim

CLAIM = """
import os, sys
from prefdelta.run.devices import DeviceError, claim
try:
    claim(int(sys.argv[1]))
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
except DeviceError as error:
    print(error, flush=True)
sys.stdin.read()
"""
NAMES = ["GPU-a1", "GPU-b2", "GPU-c3"]


@pytest.fixture
def start(tmp_path):
    """Starts a job that claims GPUs; gives its process and what it got. Its standard input holds it."""
    jobs = []

    def started(n, **env):
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), **env}
        words = [sys.executable, "-c", CLAIM, str(n)]
        job = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        jobs.append(job)
        return job, job.stdout.readline().strip()

    yield started
    for job in jobs:
        job.kill()
        job.communicate()


def machine(folder, n, then=""):
    """A machine with ``n`` GPUs: an nvidia-smi that lists them."""
    lines = [f"GPU {number}: NVIDIA H100 80GB HBM3 (UUID: {name})" for number, name in enumerate(NAMES[:n])]
    (folder / "bin").mkdir()
    script = folder / "bin" / "nvidia-smi"
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + then)
    script.chmod(0o755)


def test_jobs_get_different_gpus_and_one_too_many_is_told_so(tmp_path, start):
    machine(tmp_path, 2)
    (_, first), (_, second), (_, third) = start(1), start(1), start(1)
    assert [first, second] == ["GPU-a1", "GPU-b2"]
    for word in ("needs 1 free GPUs and found 0 of 2", "--resources gpu=2"):
        assert word in third


def test_a_gpu_is_free_again_when_its_job_has_ended_or_was_killed(tmp_path, start):
    machine(tmp_path, 2)
    (ending, _), (killed, _) = start(1), start(1)
    ending.communicate()
    assert start(1)[1] == "GPU-a1"
    killed.kill()
    killed.wait()
    assert start(1)[1] == "GPU-b2"


def test_a_job_of_several_gpus_takes_those_that_are_free(tmp_path, start):
    machine(tmp_path, 3)
    first, _ = start(1)
    assert start(2)[1] == "GPU-b2,GPU-c3"
    first.communicate()
    assert "needs 2 free GPUs and found 1 of 3" in start(2)[1]


def test_a_job_that_found_too_few_holds_none(tmp_path, start):
    machine(tmp_path, 2)
    refused, message = start(3)
    assert "found 2 of 2" in message
    refused.communicate()
    assert start(2)[1] == "GPU-a1,GPU-b2"


def test_what_the_scheduler_gave_is_kept(tmp_path, start):
    machine(tmp_path, 1)
    assert start(1, CUDA_VISIBLE_DEVICES="5")[1] == "5"
    assert start(1)[1] == "GPU-a1"  # it is not held by the other


def test_a_job_without_gpus_claims_none(tmp_path, start):
    machine(tmp_path, 1)
    assert start(0)[1] == "None"
    assert start(1)[1] == "GPU-a1"


def test_a_machine_whose_driver_does_not_answer_has_no_gpus(tmp_path, start):
    machine(tmp_path, 0, "echo 'NVIDIA-SMI has failed because it could not reach the driver.'\nexit 9\n")
    assert "found 0 of 0" in start(1)[1]


def test_whether_a_machine_has_gpus_is_what_its_driver_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    for n in (1, 0):
        machine(tmp_path, n)
        assert any_here() == bool(n)
        shutil.rmtree(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not any_here()


def test_a_machine_without_a_driver_says_how_to_do_without(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"needs 2 free GPUs and found 0 of 0.*`gpus: 0`"):
        claim(2)
    claim(0)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_what_others_planted_under_the_name_of_a_lock_is_left_alone(tmp_path, start):
    machine(tmp_path, 1)
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    (tmp_path / f"prefdelta-{os.getuid()}-GPU-a1.lock").symlink_to(kept)  # where the lock was once
    assert start(1)[1] == "GPU-a1"
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("planted", ["link", "file", "open to all"])
def test_a_folder_of_locks_that_is_not_ones_own_is_refused(planted, tmp_path, start):
    machine(tmp_path, 1)
    folder, other = tmp_path / f"prefdelta-{os.getuid()}", tmp_path / "other"
    other.mkdir()
    if planted == "link":
        folder.symlink_to(other)
    elif planted == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert str(folder) in start(1)[1]
    assert not any(other.iterdir())
