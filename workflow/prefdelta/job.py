"""What every script does around its one function: log to the rule's file, and end with a message instead of a traceback."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from prefdelta.devices import claim
from prefdelta.errors import PrefdeltaError

log = logging.getLogger("prefdelta")


@contextmanager
def job(log_file: str, gpus: int = 0) -> Iterator[None]:
    """Logs to ``log_file`` (which Snakemake shows where a job fails). A `PrefdeltaError` ends the process with its message.

    Takes ``gpus`` free GPUs first.

    The last line says how long the process took to start and import, and how long it worked.
    """
    started = time.time()
    startup = started - psutil.Process().create_time()
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
    log.info("done: %.2f s of start-up and imports, %.2f s of work", startup, time.time() - started)
