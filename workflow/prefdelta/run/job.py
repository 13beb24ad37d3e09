"""What every script does around its one function: log to the rule's file, and end with a message instead of a traceback."""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from prefdelta.run.devices import claim
from prefdelta.run.errors import PrefdeltaError

log = logging.getLogger("prefdelta")

STARTED_AS = "PREFDELTA_STARTED_AS"  # set by `warm` in a fork: the process id of the script that waits for it


@contextmanager
def job(log_file: str, gpus: int = 0) -> Iterator[None]:
    """Logs to ``log_file`` (which Snakemake shows where a job fails). A `PrefdeltaError` ends the process with its message.

    Takes ``gpus`` free GPUs first.

    The last line says how long the process took to start and import, how long it worked, its CPU time with that of its children,
    and the memory of the largest of them. Of a job that `warm` has forked, Snakemake's benchmark file measures only the script
    that waits for it.
    """
    started = time.time()
    startup = started - psutil.Process(int(os.environ.get(STARTED_AS, os.getpid()))).create_time()
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    Path(log_file).write_text("")
    # Appending, since a server that the job starts writes to the same file.
    logging.basicConfig(filename=log_file, filemode="a", level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.captureWarnings(True)
    for name in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        claim(gpus)
        yield
    except PrefdeltaError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    except Exception:
        log.exception("unexpected error")
        raise
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    memory = max(usage.ru_maxrss for usage in used) / 1024
    line = "done: %.2f s of start-up and imports, %.2f s of work, %.2f s of CPU, %.0f MiB at most"
    log.info(line, startup, time.time() - started, cpu, memory)
