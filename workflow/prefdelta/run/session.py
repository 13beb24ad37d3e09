"""The main Snakemake process of a run: its jobs end with it, and a lock that it left behind when it was killed needs no hand.

Snakemake does neither. Its locks are files that name no process, so it can't tell whether theirs is still there.
"""

import contextlib
import fcntl
import os
import platform
import select
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import psutil

VARIABLE = "PREFDELTA_MAIN"  # the main process's id, for jobs on its machine
FOLDER = Path(".snakemake")
_held: list[TextIO] = []  # the system lets it go when the process ends, however it ends


def begin(workflow: Any) -> None:
    """When the Snakefile is read: the jobs of this process will end with it, and Snakemake's lock goes if nobody holds it.

    Every main process has a shared lock on a file of our own, which ends with it. The file says where they have run since the
    last that ended well: what runs on other machines may not be seen through a network's file system, so there Snakemake's lock
    stays.
    """
    if not workflow.is_main_process:
        os.environ.pop(VARIABLE, None)  # a cluster's job, which the scheduler ends
        return
    if not workflow.deployment_settings.deployment_method:  # else a job may not see this process's id
        os.environ[VARIABLE] = str(os.getpid())
    try:
        FOLDER.mkdir(exist_ok=True)
        file = (FOLDER / "prefdelta.lock").open("a+", encoding="utf-8")
    except OSError:  # Snakemake says that it can't write here
        return
    _held.append(file)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_stale(file, FOLDER / "locks")
    fcntl.flock(file, fcntl.LOCK_SH)
    _add_place(file, platform.node())


def note_cluster(workflow: Any) -> None:
    """When jobs begin: those of a cluster outlive a main process that is killed, and with them Snakemake's lock."""
    if workflow.non_local_exec and _held:
        _add_place(_held[0], "a cluster")


def _places(file: TextIO) -> set[str]:
    file.seek(0)
    return set(file.read().splitlines())


def _add_place(file: TextIO, place: str) -> None:
    if place not in _places(file):
        print(place, file=file, flush=True)


def _remove_stale(file: TextIO, locks: Path) -> None:
    """Nobody on this machine holds ``locks``."""
    if locks.is_dir() and any(locks.iterdir()):
        if _places(file) != {platform.node()}:
            return
        shutil.rmtree(locks)
        print("A run in this folder was killed, and its lock is removed: nobody holds it any more.", file=sys.stderr, flush=True)
    file.truncate(0)


def end_with_main() -> None:
    """In a job: kills this process when the main process ends. The servers that it started have a `warden`."""
    if main := os.environ.get(VARIABLE):
        threading.Thread(target=_end_after, args=(int(main),), daemon=True).start()


def _end_after(main: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            select.select([os.pidfd_open(main)], [], [])  # it ends also where nobody has asked yet how it ended
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(main).wait()
    os.kill(os.getpid(), signal.SIGKILL)
