"""A process that a job starts and always ends with all its descendants."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from prefdelta.run import warden


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
