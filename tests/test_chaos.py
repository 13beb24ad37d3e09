"""The short form of `make chaos`: six faults in the first stages of the smoke study."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")
TARGET = "results/smoke/pairs/oracle/qwen-l_vs_qwen-s/full.parquet"


@pytest.mark.skipif(sys.platform != "linux", reason="it mounts file systems in a user namespace")
def test_six_faults_leave_no_trace_in_what_comes_out(tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no user namespaces here")
    command = [sys.executable, str(CHAOS), "--faults", "6", "--seed", "3", "--folder", str(tmp_path), TARGET]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-8000:]
    assert "6 faults, 0 differing rows, 0 processes left, " in said.splitlines()[-1]
