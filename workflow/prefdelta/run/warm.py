"""One process imports torch, transformers and trl once for all jobs of a local run, and forks itself for each of them.

    Snakemake -> the script, which only waits --(socket)--> relay -> keeper -> fork: the script itself

The script stays the process that Snakemake knows: it hands its arguments, environment and open files over, passes signals on and
ends as the fork has ended. Each of these processes dies with the one to its left, however that ends. The first script starts
the relay. The socket's name is in Linux's abstract namespace, so it is gone with the relay. (The standard library's fork server
serves only the children of one Python process.)
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VARIABLE = "PREFDELTA_WARM"  # the process id of the main Snakemake process, and what nobody else can know
# What jobs use with models of the micro-world. Not polars: it starts threads when it is imported, and a fork has none of them.
MODULES = (
    "trl.trainer.dpo_trainer",
    "trl.trainer.kto_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
)
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_ended_well: list[str] = []  # in a fork: its script, once that has ended without an error


def offer(workflow: Any) -> None:
    """In the Snakefile: lets the scripts that the main process starts use a relay.

    Not for jobs with libraries of their own (conda, containers), and not where there is a GPU: CUDA does not survive a fork, and
    a library may ask for it when it is imported.
    """
    own = workflow.is_main_process and not workflow.deployment_settings.deployment_method
    if own and sys.platform == "linux" and not shutil.which("nvidia-smi") and not Path("/dev/kfd").exists():
        os.environ[VARIABLE] = f"{os.getpid()}-{secrets.token_hex(16)}"


def run_warm(modules: Sequence[str] = MODULES) -> None:
    """In a script, before its other imports: runs it in a fork of the relay and ends as that ends.

    Returns where there is no relay to be had, and the script goes on by itself: under another parent than the main Snakemake
    process (a cluster's job, a container), with several threads (the relay's libraries have one), where the relay can't start.
    """
    parent = os.environ.get(VARIABLE, "").partition("-")[0]
    if parent != str(os.getppid()) or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    try:
        relay = _connected(f"\0prefdelta-{os.environ[VARIABLE]}", int(parent), modules)
        socket.send_fds(relay, [b"."], [0, 1, 2])
        environment = {**os.environ, "PREFDELTA_STARTED_AS": str(os.getpid())}  # for `job`
        relay.sendall(json.dumps({"argv": sys.argv, "folder": str(Path.cwd()), "environment": environment}).encode() + b"\n")
        _, forks, _, _ = socket.recv_fds(relay, 1, 1)
        if not forks:
            raise ConnectionResetError("it has ended")
    except OSError as error:
        log.warning("There is no warm interpreter: %s. The job imports its libraries itself.", error)
        return

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(forks[0], number)

    # A Ctrl-C reaches the fork, which is in Snakemake's process group, and must not reach it from here once more.
    os.setpgid(0, 0)
    for number in _SIGNALS:
        signal.signal(number, pass_on)
    code = b""
    with contextlib.suppress(ConnectionResetError):
        code = relay.recv(16)
    if not code:
        print("The warm interpreter was killed, and this job with it.", file=sys.stderr, flush=True)
        os._exit(1)
    if code.startswith(b"-"):
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-int(code), signal.SIG_DFL)
        os.kill(os.getpid(), -int(code))
    os._exit(int(code))


def _connected(address: str, main: int, modules: Sequence[str]) -> socket.socket:
    """A connection to the relay, which is started if there is none. Raises OSError."""
    relay = socket.socket(socket.AF_UNIX)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
        except OSError:
            pass  # there is one, or another script is about to start it
        else:
            listener.listen(socket.SOMAXCONN)
            handed = (listener.fileno(), os.pidfd_open(main))
            command = [sys.executable, "-m", __name__, *map(str, handed), *modules]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=handed)
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError):
                relay.connect(address)
                return _checked(relay)
            time.sleep(0.01)
    raise ConnectionRefusedError("nobody listens")


def _checked(connection: socket.socket) -> socket.socket:
    """``connection``, whose other end is the same user's: anybody may connect to an abstract name. Raises PermissionError."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if user != os.getuid():
        raise PermissionError(f"its socket is user {user}'s")
    return connection


def _relay(listener: socket.socket, main: int, modules: Sequence[str]) -> tuple[dict[str, Any], list[int]]:
    """Imports ``modules`` and forks for every script that connects, until the process of the descriptor ``main`` ends.

    Returns only in the forks: what the script has asked for, and its open files.
    """
    # What is sent to the whole process group is for Snakemake and the forks.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    del sys.path[0]  # the working directory: no script imports from there
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # the one thread that these imports would start
    for module in modules:
        importlib.import_module(module)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"{threads} threads run after the imports, and a fork would have one of them only")
    gc.collect()
    gc.freeze()  # a collection writes to all objects, so each fork would get its own copy of them
    sys.stdout.flush()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
    while main not in select.select([listener.fileno(), main], [], [])[0]:
        connection, _ = listener.accept()
        with connection:
            try:
                keeper = _fork()
            except OSError:  # too many processes, or no memory: the script goes on by itself
                continue
            if keeper == 0:
                listener.close()
                try:
                    request = _keep(connection)
                except (OSError, ValueError):  # the script was killed
                    os._exit(1)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                return request
    os._exit(0)


def _keep(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """In a keeper: forks for the script of ``connection``, and tells it how that has ended. Returns only in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _checked(connection)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    pid = _fork()
    if pid == 0:
        return request, files
    fork = os.pidfd_open(pid)
    socket.send_fds(connection, [b"."], [fork])
    if fork not in select.select([connection.fileno(), fork], [], [])[0]:
        os.kill(pid, signal.SIGKILL)  # the script is gone
    connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _fork() -> int:
    """As `os.fork`, of a child that is killed when its parent ends."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _run(request: dict[str, Any], files: list[int]) -> None:
    """Makes this fork what the script would be, and runs it."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["argv"]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    _ended_well.append(sys.argv[0])


def _leave() -> None:
    """Ends a fork whose script has ended well without taking apart what the relay has imported, which takes 0.3 s."""
    if _ended_well:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    atexit.register(_leave)  # registered first, so called last
    try:
        asked = _relay(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
    except Exception as error:
        sys.exit(f"The warm interpreter ends: {error!r}")
    _run(*asked)
