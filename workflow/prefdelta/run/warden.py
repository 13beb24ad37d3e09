"""Runs a command for a job and ends it with all its descendants, also when the job is killed. `endpoint.running` starts it.

It is a process of its own between the two. Its standard input is a pipe that the job holds open, so its end is the job's end,
even by SIGKILL. On Linux it adopts orphans (PR_SET_CHILD_SUBREAPER), so descendants that outlive their parents or open
sessions of their own are found and ended, too (vLLM's engine runs in processes of its own).
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

import psutil

GRACE = 10  # seconds from SIGTERM to SIGKILL


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _end(server: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server's process group; SIGKILL to all that is left once the server is gone or did not obey."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(GRACE)
    for _ in range(30):  # a process that hangs in a driver can't be killed at once
        left = psutil.Process().children(recursive=True)
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def guard(command: list[str]) -> int:
    """Runs ``command`` until it exits or the job does, and ends what is left of it. Returns its exit code, as a shell does."""
    _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG: should this process be killed
    )
    try:
        # Nobody writes to the pipe: it gets readable when the job has closed it. Meanwhile the server may have exited.
        while server.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
            pass
    finally:
        _end(server)
    code = server.wait()
    return code if code >= 0 else 128 - code


def _leave(signum: int, _frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)  # a second signal must not interrupt the ending
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(guard(sys.argv[1:]))
