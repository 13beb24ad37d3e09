"""A server that a job starts, waits for, and always ends with all its descendants."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from prefdelta import warden
from prefdelta.errors import PrefdeltaError


class EndpointError(PrefdeltaError):
    """An endpoint can't be used: its server did not start or ended, its key is missing, or it refuses what it is asked."""


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], log: Path | str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``command`` until the block ends, with its output in the file ``log``.

    The process is a `warden`, which exits with the command's code. At the end the command's process group gets SIGTERM and, once
    the command is gone or 10 s later, all its descendants get SIGKILL. They end, too, where this process is killed.
    """

    def leave(signum: int, _frame: object) -> None:
        sys.exit(128 + signum)

    previous = signal.signal(signal.SIGTERM, leave)
    # -P: the package's folder has modules with names of the standard library.
    guarded = [sys.executable, "-P", warden.__file__, *command]
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            guarded, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    assert process.stdin
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def serving(
    command: list[str],
    health: str,
    log: Path | str,
    patience: float = 60,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`running`, entered once the URL ``health`` answers 200.

    Raises EndpointError where the server exits or is not healthy after ``patience`` seconds.
    """
    with running(command, log, environment) as process:
        _wait(process, health, log, patience)
        yield process


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
