"""A server that a job starts, waits for, and always ends."""

import contextlib
import hashlib
import http.client
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.run.errors import PrefdeltaError
from prefdelta.run.processes import running
from prefdelta.study.run import ModelRun


class EndpointError(PrefdeltaError):
    """An endpoint can't be used: its server did not start or ended, its key is missing, or it refuses what it is asked."""


@dataclass(frozen=True)
class Served:
    """What a server serves: a checkpoint's folder under a name, with weights of a ``dtype``, and how it is run."""

    model: str
    checkpoint: Path | None
    dtype: str
    run: ModelRun


@dataclass(frozen=True)
class Server:
    """A server to start. ``identity`` determines its answers besides the request. It is ready within ``patience`` seconds."""

    identity: dict[str, Any]
    command: list[str]
    patience: float
    environment: Mapping[str, str] | None = None


def weights(served: Served) -> str:
    """A digest of what a checkpoint's manifest says, which holds those of its files."""
    assert served.checkpoint is not None
    manifest = read_manifest(served.checkpoint / "manifest.json")
    kept = {name: value for name, value in manifest.items() if name not in ("versions", "run", "sha256")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


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
    opener = urllib.request.OpenerDirector()  # that uses no proxy and follows no redirect
    opener.add_handler(urllib.request.HTTPHandler())
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EndpointError(f"the server ended with exit code {process.returncode} before it was ready: see {log}")
        with contextlib.suppress(OSError, http.client.HTTPException), opener.open(health, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise EndpointError(f"the server did not answer at {health} within {patience:.0f} s: see {log}")
