"""What every script does around its one function: binds files and settings to its parameters, logs, ends with a message."""

import json
import logging
import os
import platform
import resource
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from prefdelta.run.atomic import remove_unfinished
from prefdelta.run.devices import claim
from prefdelta.run.errors import DamagedError, PrefdeltaError, disk_fault
from prefdelta.run.records import Record, write_record
from prefdelta.run.session import end_with_main

log = logging.getLogger("prefdelta")

STARTED_AS = "PREFDELTA_STARTED_AS"  # set by `warm` in a fork: the process id of the script that waits for it
# Libraries that results can depend on, of which a job records the versions of those that it has loaded.
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "numpy", "scipy", "polars", "math_verify")


class BindingError(PrefdeltaError):
    """A rule and its stage function do not have the same words: the message names those that differ."""


def run_job(stage: Callable[..., None], snakemake: Any) -> None:
    """Calls ``stage`` with what its rule declares, by name.

    Each parameter is an input (a `Path`, ``Path | None``, ``list[Path]``, or ``dict[key, Path]``), an output, ``settings`` or
    ``run`` (of the type that it is annotated with), ``threads`` or ``log_file``. Leaves a `records.Record` beside the log.
    """
    log_file = Path(snakemake.log[0])
    with job(log_file, snakemake.resources.get("gpu", 0), snakemake.input, snakemake.output):
        given = {"threads": snakemake.threads, "log_file": log_file}
        stage(**bind(stage, dict(snakemake.input.items()), dict(snakemake.output.items()), dict(snakemake.params.items()), given))
        run = json.loads(snakemake.params.get("run", "null"))
        write_record(Record(snakemake.rule, list(snakemake.output), versions(), run, snakemake.threads), log_file)


def bind(
    stage: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    params: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of ``stage``. ``params`` has ``content`` and ``run`` (`plan.job.Job`).

    An output that is not taken must be one that is taken in another format (same name, other ending). Raises BindingError.
    """
    kinds = {name: kind for name, kind in typing.get_type_hints(stage).items() if name != "return"}
    content = json.loads(params.get("content", '{"settings": null, "keys": {}}'))
    arguments: dict[str, Any] = {name: given[name] for name in given if name in kinds}
    for name, files in inputs.items():
        if name in kinds:
            arguments[name] = _files(name, kinds[name], files, content["keys"].get(name))
    arguments |= {name: Path(file) for name, file in outputs.items() if name in kinds}
    typed = {"settings": content["settings"], "run": json.loads(params.get("run", "null"))}
    typed = {name: value for name, value in typed.items() if value is not None}
    arguments |= {name: TypeAdapter(kinds[name]).validate_python(value) for name, value in typed.items() if name in kinds}
    stems = {Path(file).with_suffix("") for name, file in outputs.items() if name in kinds}
    untaken = [name for name, file in outputs.items() if name not in kinds and Path(file).with_suffix("") not in stems]
    untaken += [name for name in [*inputs, *typed] if name not in kinds]
    missing = [name for name in kinds if name not in arguments]
    if untaken or missing:
        raise BindingError(
            f"{stage.__module__}.{stage.__name__} does not take {', '.join(untaken) or 'nothing'} of its rule, and its rule does "
            f"not declare {', '.join(missing) or 'nothing'} of its parameters"
        )
    return arguments


def _files(name: str, kind: Any, files: Any, keys: list[Any] | None) -> Any:
    """``files`` of an input (one, or a list) as a parameter of the type ``kind`` takes them."""
    listed = [Path(files)] if isinstance(files, str) else [Path(file) for file in files]
    is_dict = typing.get_origin(kind) is dict
    if is_dict != (keys is not None):
        raise BindingError(f"input {name} is {'without keys' if is_dict else 'keyed'}, and the stage's parameter is {kind}")
    if keys is not None:
        key: TypeAdapter[Any] = TypeAdapter(typing.get_args(kind)[0])
        return dict(zip(map(key.validate_python, keys), listed, strict=True))
    if typing.get_origin(kind) is list:
        return listed
    if len(listed) > 1 or (kind is Path and not listed):
        raise BindingError(f"input {name} has {len(listed)} files, and the stage's parameter is {kind}")
    return listed[0] if listed else None


def _put_aside(path: Path) -> None:
    """Renames a damaged file, which nothing is lost by: what is gone is made again, and whoever wants to can look at it."""
    with suppress(OSError):  # another job did it already, or the folder is read-only
        path.rename(f"{path}.damaged")
        log.error("%s is now %s.damaged, so the same command makes it again.", path, path)


def versions() -> dict[str, str]:
    """Those of Python and of the `LIBRARIES` that this process has loaded."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES if name in sys.modules}


class _LogFile(logging.FileHandler):
    """What can't be written to the log, on a full disk, goes to standard error."""

    def handleError(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def job(log_file: Path, gpus: int = 0, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> Iterator[None]:
    """Logs to ``log_file`` (which Snakemake shows where a job fails). A `PrefdeltaError` ends the process with its message.

    So does a disk that is full or read-only. One of ``inputs`` that is damaged gets another name, ``.damaged``, so that the same
    command makes it again. What an earlier try was writing to ``outputs`` when it was killed is removed. The process ends with
    the main Snakemake process. Takes ``gpus`` free GPUs first.

    The last line says how long the process took to start and import, how long it worked, its CPU time with that of its children,
    and the memory of the largest of them. Of a job that `warm` has forked, Snakemake's benchmark file measures only the script
    that waits for it.
    """
    started = time.time()
    startup = started - psutil.Process(int(os.environ.get(STARTED_AS, os.getpid()))).create_time()
    end_with_main()
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file.write_text("")
        # Appending, since a server that the job starts writes to the same file.
        handler = _LogFile(log_file, mode="a")
    except OSError as error:
        sys.exit(disk_fault(error, log_file) or f"the log {log_file} can't be written: {error}")
    logging.basicConfig(handlers=[handler], level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.captureWarnings(True)
    for name in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        for output in outputs:
            remove_unfinished(Path(output))
        claim(gpus)
        yield
    except PrefdeltaError as error:
        log.error("%s: %s", type(error).__name__, error)
        if isinstance(error, DamagedError) and str(error.path) in set(inputs):
            _put_aside(error.path)
        sys.exit(1)
    except Exception as error:
        if told := disk_fault(error, ", ".join(outputs) or log_file):
            log.error(told)
            sys.exit(1)
        log.exception("unexpected error")
        raise
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    memory = max(usage.ru_maxrss for usage in used) / 1024
    line = "done: %.2f s of start-up and imports, %.2f s of work, %.2f s of CPU, %.0f MiB at most"
    log.info(line, startup, time.time() - started, cpu, memory)
