"""The base of all errors whose message is meant for the person who runs the workflow."""

import errno
import os
from pathlib import Path

# What a full or read-only disk, or one that fails, says: libraries that are not Python have it in their messages only.
_DISK = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your quota of the disk is used up: make room",
    errno.EFBIG: "the file would be larger than is allowed here (`ulimit -f`): allow more",
    errno.EROFS: "the file system is read-only: mount it writable, or work elsewhere (`--directory`)",
    errno.EACCES: "you have no permission: give it (`chmod`, `chown`), or work elsewhere (`--directory`)",
    errno.EPERM: "it is not permitted: look at its owner and flags (`ls -l`, `lsattr`)",
    errno.EIO: "the disk does not answer: look at the system's log (`dmesg`)",
}

_TORCH = "inline_container.cc"  # writes checkpoints, and does not say why it could not


class PrefdeltaError(Exception):
    """Bad input or a broken environment: the message says what is wrong, where, and what to do."""


class DamagedError(PrefdeltaError):
    """A file that a job made is not what it wrote. It is made again where the file at ``path`` is gone."""

    def __init__(self, message: str, path: Path | str) -> None:
        super().__init__(message)
        self.path = Path(path)


def disk_fault(error: BaseException, place: Path | str) -> str | None:
    """What to do about an ``error`` of the disk, with the path (``place`` where it names none). None where it is another one."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    for one in causes:
        for code, advice in _DISK.items():
            if isinstance(one, OSError) and one.errno is not None:
                found = one.errno == code
            else:
                found = f"{os.strerror(code)} (os error {code})" in str(one) or (code == errno.ENOSPC and _TORCH in str(one))
            if found:
                named = one.filename if isinstance(one, OSError) else None
                return f"{os.fsdecode(named or place)} can't be used, {advice}. Then run the same command again."
    return None


class ConfigError(PrefdeltaError):
    """The configuration, or a name in a request, is wrong: the message names it and the choices."""
