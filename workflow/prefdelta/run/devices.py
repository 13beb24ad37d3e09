"""GPUs of a job: Snakemake counts them but does not say which, so a job takes free ones."""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from prefdelta.run.errors import PrefdeltaError

_held: list[int] = []  # open lock files: the system lets them go when the process ends, however it ends


class DeviceError(PrefdeltaError):
    """There are fewer free GPUs than a job needs."""


def _own_folder() -> Path:
    """A folder for locks that nobody else can write to: its name can be guessed, so anybody may have made something there.

    Raises DeviceError.
    """
    folder = Path(tempfile.gettempdir(), f"prefdelta-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DeviceError(
            f"{folder}, where GPUs are locked, is not a folder that only you can write to: remove it, or set $TMPDIR"
        )
    return folder


def any_here() -> bool:
    """Whether this machine has a GPU that a job could `claim`."""
    return bool(_here())


def _here() -> list[str]:
    """The UUIDs of this machine's GPUs."""
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [line.partition("UUID: ")[2].rstrip(")") for line in listed.splitlines() if line.startswith("GPU ")]


def claim(n: int) -> None:
    """Makes ``n`` free GPUs of this machine the process's only visible ones, until it ends.

    Nothing is done for ``n`` = 0, or where the scheduler has set CUDA_VISIBLE_DEVICES already (slurm does). Raises DeviceError.
    """
    if n == 0 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    found = _here()
    taken: list[str] = []
    for uuid in found:
        lock = os.open(_own_folder() / f"{uuid}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _held.append(lock)
        taken.append(uuid)
        if len(taken) == n:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
            return
    raise DeviceError(
        f"this job needs {n} free GPUs and found {len(taken)} of {len(found)}: "
        + (f"give Snakemake `--resources gpu={len(found)}`, or set " if found else "set ")
        + "`gpus: 0` of the model or recipe in `run` to run without one"
    )
