"""Runs untrusted Python programs: no network, no files but the interpreter's, no processes, and limits on everything else.

Nothing is needed beyond Python and Linux 5.12 (x86-64 or ARM64) where users may make user namespaces. Each program runs in
its own user, mount, network, process, IPC and host-name namespace, in a root directory that holds only the base interpreter, the
system's libraries, numpy and four devices, all read-only, and a small tmpfs as working directory: home directories, the
repository, /tmp, /run and /proc are not there. It has no capabilities, an empty environment, a seccomp filter under which it can
start threads but no processes and open no socket, and resource limits. Without namespaces it refuses to run anything.
"""

import contextlib
import functools
import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdelta.data import sandbox_init
from prefdelta.run.errors import PrefdeltaError

SCRATCH_MB = 64
WALL_TO_CPU = 2  # the clock allows more than the CPU time, so that a busy machine fails no program
PATIENCE = 60  # seconds to build a sandbox on a busy machine
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PACKAGES = "/packages"
PROGRAM, STDIN = "/program.py", "/dev/stdin"

HELP = """it needs Linux 5.12 on x86-64 or ARM64, and unprivileged user namespaces. Where these are not allowed, what may help is:
  sysctl -w user.max_user_namespaces=15000                     (RHEL and its kin)
  sysctl -w kernel.unprivileged_userns_clone=1                 (Debian's older kernels)
  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0     (Ubuntu 23.10 and later)
  docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined    (containers)"""


class SandboxError(PrefdeltaError):
    """There is no sandbox here: nothing was run. The message says what is missing."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended. ``exit_code`` is negative for a signal. Bytes that are not UTF-8 are replaced in the outputs.

    ``timed_out``: by its CPU time or by the clock; ``stopped_by_clock``: by the clock with CPU time to spare, so that it waited,
    or did not get its turn on a busy machine.
    """

    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool
    stopped_by_clock: bool
    output_exceeded: bool
    cpu_seconds: float
    wall_seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, without an error and within all limits."""
        return self.exit_code == 0 and not self.timed_out and not self.output_exceeded


def run(code: str, stdin: str, *, seconds: float, memory_mb: int, output_bytes: int, wall_to_cpu: float = WALL_TO_CPU) -> Outcome:
    """Runs the Python program ``code`` on ``stdin`` in a sandbox of its own.

    ``seconds``: of CPU time (rounded up to whole ones); the clock allows ``wall_to_cpu`` times as much. ``memory_mb``: address
    space, so MemoryError beyond it. ``output_bytes``: for each of stdout, stderr and any file; writing beyond it is an OSError.
    The program's hash seed is 0, so that it does the same each time. Safe to call from several threads. Raises SandboxError.
    """
    _check_once()
    return _run(code, stdin, seconds, memory_mb, output_bytes, wall_to_cpu)


@functools.cache
def _check_once() -> None:
    """An interpreter that lacks a library in the sandbox must not pass for a program that is wrong."""
    outcome = _run("print('ready')", "", seconds=20, memory_mb=4096, output_bytes=10_000)
    if outcome.stdout != "ready\n":
        raise SandboxError(
            f"{_interpreter()} does not start in the sandbox (exit code {outcome.exit_code}): {outcome.stderr[-500:]}"
        )


def _run(code: str, stdin: str, seconds: float, memory_mb: int, output_bytes: int, wall_to_cpu: float = WALL_TO_CPU) -> Outcome:
    job = {
        "binds": _binds(),
        "files": {PROGRAM: code, STDIN: stdin},
        "stdin": STDIN,
        "command": [_interpreter(), "-S", "-s", "-P", "-B", PROGRAM],
        "environment": {
            "PATH": "/usr/bin:/bin",
            "HOME": sandbox_init.BOX,
            "LANG": "C.UTF-8",
            "PYTHONPATH": PACKAGES,
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
        },
        "cpu_seconds": math.ceil(seconds),
        "wall_seconds": seconds * wall_to_cpu,
        "memory_mb": memory_mb,
        "output_bytes": output_bytes,
        "scratch_mb": SCRATCH_MB,
    }
    with contextlib.ExitStack() as stack:
        # The kernel bounds files by RLIMIT_FSIZE, so outputs go to files, in memory, and nobody needs to read along.
        stdout, stderr = (stack.enter_context(os.fdopen(os.memfd_create(name), "w+b")) for name in ("stdout", "stderr"))
        report = _supervised(job, stdout.fileno(), stderr.fileno())
        outputs = []
        for file in (stdout, stderr):
            file.seek(0)
            outputs.append(file.read(output_bytes))
    if "error" in report:
        trace = outputs[1].decode("utf-8", "replace").strip()
        raise SandboxError("; ".join(filter(None, [f"the sandbox could not be built: {report['error']}", trace[-500:], HELP])))
    exceeded = any(len(output) == output_bytes for output in outputs)
    written, complained = (output.decode("utf-8", "replace") for output in outputs)
    return Outcome(written, complained, output_exceeded=exceeded, **report)


def _supervised(job: Mapping[str, Any], stdout: int, stderr: int) -> dict[str, Any]:
    """The report of a `sandbox_init` that runs ``job``; it ends with all its processes before this returns or raises."""
    ours, theirs = socket.socketpair()
    command = [_interpreter(), "-I", "-S", "-B", sandbox_init.__file__, str(theirs.fileno())]
    with ours:
        with theirs:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, pass_fds=[theirs.fileno()], start_new_session=True
            )
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(json.dumps(job).encode())
            ours.settimeout(job["wall_seconds"] + PATIENCE)
            message = b"".join(iter(lambda: ours.recv(65536), b""))
        except TimeoutError:
            return {"error": f"no answer within {PATIENCE} s"}
        finally:
            ours.shutdown(socket.SHUT_RDWR)  # it ends the program when we hang up
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    # A program that could not be started reports first.
    return json.loads(message.splitlines()[0]) if message else {"error": f"its first process ended with {process.returncode}"}


def _interpreter() -> str:
    """The interpreter under any virtual environment."""
    return str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]


def _binds() -> list[tuple[str, str]]:
    """What a program can see, each (where it is, where the program sees it)."""
    prefix = Path(sys.base_prefix).resolve()
    # Not the whole prefix: it could be someone's home directory.
    interpreter = [_interpreter(), *(str(prefix / name) for name in ("lib", "lib64"))]
    paths = [path for path in dict.fromkeys([*SYSTEM, *interpreter]) if Path(path).exists()]
    # What is within another path is there with it.
    places = [path for path in paths if not any(path != other and Path(path).is_relative_to(other) for other in paths)]
    # Resolved, since links are followed when the old root is elsewhere.
    binds = [(str(Path(place).resolve()), place) for place in places]
    numpy = importlib.util.find_spec("numpy")
    if numpy is not None and numpy.origin is not None:
        folder = Path(numpy.origin).resolve().parent
        found = [path for path in (folder, folder.with_name("numpy.libs")) if path.exists()]
        binds += [(str(path), f"{PACKAGES}/{path.name}") for path in found]
    return binds
