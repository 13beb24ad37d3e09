"""Grading in processes of its own, with a limit in processor time: what a grade is must not depend on how busy a machine is.

    job -> warden -> `serve` -> forks of it, one for each thread, which work on one task at a time

`serve` imports what grading needs once. A fork is ended by the kernel when it has used up its processor time, also within a
computation that no Python signal could interrupt, and by `serve` when it holds too much memory; then another takes its place.
"""

import gc
import json
import logging
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from prefdelta.run.errors import PrefdeltaError
from prefdelta.run.processes import running
from prefdelta.tasks import find

log = logging.getLogger(__name__)

SECONDS = (5, 30)  # of processor time for one piece of work, and for what did not get done in that, which is tried again apart
MEMORY = 2 * 2**30  # bytes that it may hold
SHOWN = 3
_LOOKS = 0.1  # seconds between looks at how much memory is held


class WorkerError(PrefdeltaError):
    """The processes that grade can't run: the message says why."""


def work(task: str, method: str, arguments: Sequence[Sequence[Any]], threads: int) -> list[list[Any]]:
    """What the generator ``method`` of `tasks.find` (``task``) yields for each of ``arguments``, in as many as ``threads``.

    A list is shorter than it should be where the work was not done within `SECONDS` and `MEMORY`, or failed, twice. Arguments and
    what is yielded are JSON. Must run in the main thread. Raises WorkerError.
    """
    if not arguments:
        return []
    with TemporaryDirectory() as folder:
        asked, done, errors = (Path(folder, name) for name in ("asked.json", "done.json", "errors"))
        request = {"task": task, "method": method, "arguments": arguments, "threads": threads}
        asked.write_text(json.dumps({**request, "seconds": SECONDS, "memory": MEMORY}), encoding="utf-8")
        code = f"import sys\nfrom {serve.__module__} import {serve.__name__}\nserve(sys.argv[1], sys.argv[2])"
        # Sets and dictionaries in one order, so that a grade is the same each time.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        with running([sys.executable, "-P", "-c", code, str(asked), str(done)], errors, environment) as process:
            exit_code = process.wait()
        if exit_code or not done.is_file():
            trace = errors.read_text(encoding="utf-8", errors="replace").strip()
            raise WorkerError(f"{task}: answers could not be graded (exit code {exit_code}): {trace[-500:]}")
        found = json.loads(done.read_text(encoding="utf-8"))
    failed = {int(place): reason for place, reason in found["failed"].items()}
    if failed:
        examples = "; ".join(f"{arguments[place]!r}: {reason}"[:300] for place, reason in list(failed.items())[:SHOWN])
        log.warning("%s: %d of %d answers could not be graded, such as %s", task, len(failed), len(arguments), examples)
    yielded: list[list[Any]] = found["yielded"]
    return yielded


def serve(asked: str, done: str) -> None:
    """Does what `work` has written to the file ``asked``, and writes to ``done`` what was yielded and what failed."""
    request = json.loads(Path(asked).read_text(encoding="utf-8"))
    method = getattr(find(request["task"]), request["method"])
    n, arguments = len(request["arguments"]), request["arguments"]
    yielded: list[list[Any]] = [[] for _ in range(n)]
    failed: dict[int, str] = dict.fromkeys(range(n), "")
    gc.freeze()  # forks share what is there
    for turn, seconds in enumerate(request["seconds"]):
        jobs = [(place, arguments[place]) for place in failed]
        for place, results, reason in _each(method, jobs, request["threads"], seconds, request["memory"], alone=turn > 0):
            yielded[place] = results
            if reason is None:
                failed.pop(place)
            else:
                failed[place] = reason
    Path(done).write_text(json.dumps({"yielded": yielded, "failed": failed}), encoding="utf-8")


@dataclass
class _Fork:
    process: Any
    pipe: connection.Connection
    place: int | None = None  # of what it works on
    results: list[Any] | None = None
    reason: str = ""


def _each(
    method: Any, jobs: list[tuple[int, Any]], threads: int, seconds: float, memory: int, *, alone: bool
) -> Iterator[tuple[int, list[Any], str | None]]:
    """(place, what was yielded, why it failed or None) of each of ``jobs``, as they get done; ``alone``: a fork for each."""
    waiting = deque(jobs)
    forks: list[_Fork] = []
    while waiting or forks:
        while waiting and len(forks) < threads:
            forks.append(_fork(method, seconds))
            _give(forks[-1], waiting)
        ready = connection.wait([fork.pipe for fork in forks], timeout=_LOOKS)
        for fork in list(forks):
            assert fork.place is not None and fork.results is not None
            if fork.pipe not in ready:
                if _held(fork.process.pid) > memory:
                    fork.reason = f"it takes more than {memory / 2**30:.3g} GiB of memory"
                    fork.process.kill()
                continue
            try:
                kind, value = fork.pipe.recv()
            except EOFError:  # it has ended
                fork.process.join()
                late = fork.process.exitcode == -signal.SIGPROF
                how = f"it takes more than {seconds} s of processor time" if late else f"it ended with {fork.process.exitcode}"
                yield fork.place, fork.results, fork.reason or how
                forks.remove(fork)
                continue
            if kind == "yielded":
                fork.results.append(value)
                continue
            yield fork.place, fork.results, value
            if waiting and not alone:
                _give(fork, waiting)
            else:
                fork.pipe.send(None)
                fork.process.join()
                forks.remove(fork)


def _fork(method: Any, seconds: float) -> _Fork:
    context = get_context("fork")  # of a process with one thread, whose libraries are imported
    ours, theirs = context.Pipe()
    process = context.Process(target=_labour, args=(method, theirs, seconds), daemon=True)
    process.start()
    theirs.close()
    return _Fork(process, ours)


def _give(fork: _Fork, waiting: deque[tuple[int, Any]]) -> None:
    fork.place, arguments = waiting.popleft()
    fork.results, fork.reason = [], ""
    fork.pipe.send(arguments)


def _labour(method: Any, pipe: connection.Connection, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    while (arguments := pipe.recv()) is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            for result in method(*arguments):
                pipe.send(("yielded", result))
            reason = None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:200]
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(("done", reason))


def _held(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
