"""A run whose main process is killed: its jobs end with it, and the same command goes on without a hand."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

SNAKEFILE = """
from prefdelta.run import session, warm
session.begin(workflow)
warm.offer(workflow)

onstart:
    session.note_cluster(workflow)

rule make:
    output: "{name}.txt"
    log: "{name}.log"
    threads: 1
    script: "make.py"
"""
# It writes its process ids, and its output once "go" is there.
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from prefdelta.run.warm import run_warm

if __name__ == "__main__":
    if snakemake.wildcards.name.startswith("warm"):
        run_warm([])
    from prefdelta.run.job import run_job
    from prefdelta.run.processes import running

    def make(text: Path) -> None:
        with running(["sleep", "1000"], "server.log"):
            Path(f"{text}.pid").write_text(f"{os.getpid()} {os.getppid()}")
            while not Path("go").exists():
                time.sleep(0.05)
            text.write_text("made")

    run_job(make, snakemake)
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.replace('output: "', 'output: text="'))
    (tmp_path / "make.py").write_text(SCRIPT)
    started = []

    def start(*targets):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--rerun-incomplete", *targets]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_jobs_die_with_a_main_process_that_is_killed_and_the_same_command_goes_on(run, tmp_path):
    names = ["cold.txt", "warm.txt"]
    main = run(*names)
    wait_until(lambda: all((tmp_path / f"{name}.pid").exists() for name in names))
    family = psutil.Process(main.pid).children(recursive=True)
    assert len(family) >= 5  # two jobs, wardens, servers
    os.kill(main.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    (tmp_path / "go").touch()
    assert not any((tmp_path / name).exists() for name in names)
    output, _ = run(*names).communicate(timeout=120)
    assert "its lock is removed" in output
    assert [(tmp_path / name).read_text() for name in names] == ["made", "made"]


def test_two_runs_that_live_refuse_each_other(run, tmp_path):
    main = run("cold.txt")
    wait_until((tmp_path / "cold.txt.pid").exists)
    second = run("cold.txt")
    output, _ = second.communicate(timeout=120)
    assert second.returncode and "lock" in output.lower() and "is removed" not in output
    (tmp_path / "go").touch()
    assert main.wait(timeout=120) == 0
    assert (tmp_path / "cold.txt").read_text() == "made"


@pytest.mark.parametrize("place", ["another machine", "a cluster"])
def test_a_lock_that_others_may_hold_is_left(run, tmp_path, place):
    (tmp_path / "go").touch()
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("cold.txt\n")
    (tmp_path / ".snakemake" / "prefdelta.lock").write_text(f"{place}\n")
    process = run("cold.txt")
    assert "is removed" not in process.communicate(timeout=120)[0]
    assert process.returncode
