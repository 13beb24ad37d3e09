"""A server that a job starts, waits for, and always ends with its whole process group."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from prefdelta.errors import PrefdeltaError


class EndpointError(PrefdeltaError):
    """A server did not become healthy."""


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    # Even a SIGKILL of the job must not leave its server behind: Linux can be asked to end the child then.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def serving(command: list[str], health: str, log: Path | str, patience: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``command`` until the block ends; enters it once the URL ``health`` answers 200.

    Output goes to the file ``log``. At the end the process group gets SIGTERM and, once the server is gone or 10 s later,
    SIGKILL. Raises EndpointError where the server exits or is not healthy after ``patience`` seconds. A SIGTERM to this process
    ends the server, too.
    """

    def leave(signum: int, _frame: object) -> None:
        sys.exit(128 + signum)

    previous = signal.signal(signal.SIGTERM, leave)
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, preexec_fn=_die_with_parent, env=os.environ
        )
        try:
            _wait(process, health, log, patience)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # children that outlive it
            signal.signal(signal.SIGTERM, previous)


def _wait(process: subprocess.Popen[bytes], health: str, log: Path | str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EndpointError(f"the server ended with exit code {process.returncode} before it was ready: see {log}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if urllib.request.urlopen(health, timeout=2).status == 200:
                return
        time.sleep(0.05)
    raise EndpointError(f"the server did not answer at {health} within {patience:.0f} s: see {log}")
