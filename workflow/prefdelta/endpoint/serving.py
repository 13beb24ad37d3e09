"""A server that a job starts, waits for, and always ends."""

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from prefdelta.run.errors import PrefdeltaError
from prefdelta.run.processes import running


class EndpointError(PrefdeltaError):
    """An endpoint can't be used: its server did not start or ended, its key is missing, or it refuses what it is asked."""


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
