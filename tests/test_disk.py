"""A disk that is full or read-only, and files that it has damaged: a message with the path, and nothing that is half there."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import build
import pytest

from prefdelta.report.report import render_report
from prefdelta.report.settings import ReportRun
from prefdelta.run.errors import disk_fault
from prefdelta.run.job import run_job
from prefdelta.tables.checksum import DamagedTableError, write_sums
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Traces

# One job after the other, each in a process of its own, on a small file system that is full or read-only.
JOBS = """
import os, sys
from pathlib import Path
import numpy as np, polars as pl
from test_disk import snakemake
from prefdelta.run.atomic import replacing, write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.run.job import run_job
from prefdelta.tables.io import write_table
from prefdelta.tables.stages import References

def parquet(out: Path) -> None:
    logps = -np.random.default_rng(0).random(20_000)
    frame = pl.DataFrame({"trace_id": map(str, logps), "logp": logps, "n_prompt_tokens": 1, "n_tokens": 1})
    write_table(frame.cast({"trace_id": pl.String, "n_prompt_tokens": pl.Int64, "n_tokens": pl.Int64}), References, out)

def text(out: Path) -> None:
    write_text("x" * 400_000, out)

def csv(out: Path) -> None:
    with replacing(out) as temporary:
        pl.DataFrame({"a": range(100_000)}).write_csv(temporary)

def weights(out: Path) -> None:
    from safetensors.numpy import save_file
    with replacing(out) as temporary:
        save_file({"a": np.zeros(100_000)}, temporary)

def log(out: Path) -> None:
    (place / "filler").write_bytes(bytes(os.statvfs(place).f_bavail * 4096))
    raise PrefdeltaError("small/log.made can't be made, the disk is full: run the same command again")

place = Path("small")
for stage in (parquet, text, csv, weights, log):
    name = stage.__name__
    if os.fork() == 0:
        os.dup2(os.open(f"{name}.err", os.O_WRONLY | os.O_CREAT), 2)
        run_job(stage, snakemake(place / f"{name}.log" if stage is log else Path(f"{name}.log"), out=place / f"{name}.made"))
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.wait()[1]))
print(*(file.name for file in place.iterdir()))
"""
FULL = "mkdir small && mount -t tmpfs -o size=200k none small"
READ_ONLY = "mkdir small && mount -t tmpfs -o ro none small"


class Named(list):
    """Files as Snakemake gives them."""

    def __init__(self, **files):
        super().__init__(map(str, files.values()))
        self.names = list(files)

    def items(self):
        return zip(self.names, self, strict=True)


def snakemake(log_file, inputs=(), **outputs):
    files = {"log": [str(log_file)], "input": Named(**dict(inputs)), "output": Named(**outputs)}
    return SimpleNamespace(**files, params={}, resources={}, threads=1, rule="make")


@pytest.mark.parametrize(
    "mount, words, failing",
    [(FULL, "the disk is full", "parquet text csv weights log"), (READ_ONLY, "is read-only", "parquet text csv weights log")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_ends_a_job_with_its_path_and_what_to_do(mount, words, failing, tmp_path):
    script = tmp_path / "jobs.py"
    script.write_text(JOBS)
    inside = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" "$1"', sys.executable, str(script)]
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no user namespaces here")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(inside, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    *codes, left = done.stdout.split("\n")[:-1]
    failed = failing.split()
    assert [line for line in codes if line.endswith(" 1")] == [f"{name} 1" for name in failed], done.stderr
    assert not any(f"{name}.made" in left or f".{name}-" in left for name in failed)
    for name in failed:
        files = [tmp_path / f"{name}.{kind}" for kind in ("err", "log")]  # the log may be on that disk
        said = "".join(file.read_text() for file in files if file.exists())
        assert f"small/{name}." in said and words in said and "run the same command again" in said
        assert "Traceback" not in said


def test_what_libraries_say_of_a_full_disk_is_understood():
    for error in (
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        assert "results/x can't be used, the disk is full" in disk_fault(error, "results/x")
    assert disk_fault(ValueError("a rating of 28"), "results/x") is None
    assert disk_fault(ConnectionRefusedError(111, "refused"), "results/x") is None


def test_a_damaged_input_is_put_aside_so_that_the_same_command_makes_it_again(tmp_path):
    path, log_file = tmp_path / "traces.parquet", tmp_path / "job.log"
    write_table(build.traces(), Traces, path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)

    def stage(traces: Path, out: Path) -> None:
        read_table(traces, Traces)

    with pytest.raises(SystemExit):
        run_job(stage, snakemake(log_file, {"traces": path}, out=tmp_path / "made"))
    assert f"{path} can't be trusted" in log_file.read_text() and f"{path}.damaged" in log_file.read_text()
    assert not path.exists() and (tmp_path / "traces.parquet.damaged").read_bytes() == content


def test_a_damaged_file_that_is_no_input_of_the_job_stays(tmp_path):
    path = tmp_path / "traces.parquet"
    path.write_bytes(b"no table")

    def stage(out: Path) -> None:
        read_table(path, Traces)

    with pytest.raises(SystemExit):
        run_job(stage, snakemake(tmp_path / "job.log", out=tmp_path / "made"))
    assert path.read_bytes() == b"no table"


def test_what_a_killed_try_left_half_written_is_removed(tmp_path):
    for name in (".made-abcd1234.csv", ".made-again-abcd1234.csv", "made.csv"):
        (tmp_path / name).write_text("half")

    def stage(made: Path) -> None: ...

    run_job(stage, snakemake(tmp_path / "job.log", made=tmp_path / "made.csv"))
    assert sorted(file.name for file in tmp_path.iterdir() if "made" in file.name) == [".made-again-abcd1234.csv", "made.csv"]


def test_the_report_shows_no_table_that_has_changed(tmp_path):
    table = tmp_path / "coverage.csv"
    table.write_text("judge\nj\n")
    write_sums({"coverage.csv": b"judge\ni\n"}, tmp_path / "coverage.sha256")
    run = ReportRun(snakefile=Path("Snakefile"), config={}, records=tmp_path)
    with pytest.raises(DamagedTableError, match=f"{table} can't be trusted"):
        render_report([table], [], None, tmp_path / "report.html", tmp_path / "provenance.rst", run=run)
