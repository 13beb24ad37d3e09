"""Checksums that readers check: a bit that flipped on a disk is found, with the file's name, before anything of it is believed.

A parquet file carries its own, in the metadata of its footer; JSON among its keys; a CSV table stands in the list beside it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from prefdelta.run.atomic import write_text
from prefdelta.run.errors import DamagedError
from prefdelta.tables.check import TableError

KEY = "prefdelta.sha256"
NONE_YET = {KEY: "0" * 64}  # metadata of a parquet file that `seal_parquet` fills in
# In thrift's compact protocol, in which a footer is written, a value of 64 bytes follows its key so.
_MARK = KEY.encode() + b"\x18\x40"
_PIECE = 2**20


class DamagedTableError(TableError, DamagedError):
    """A table is not what was written."""


def seal_parquet(path: Path) -> None:
    """Writes the SHA-256 of a parquet file with metadata `NONE_YET` into it: that of all its bytes but for the checksum's."""
    with path.open("r+b") as file:
        place = _place(file)
        assert place is not None
        found = _digest(file, place)
        file.seek(place)
        file.write(found.encode())


def check_parquet(path: Path) -> None:
    """Raises DamagedTableError where a parquet file is not as `seal_parquet` left it. Reads all of it."""
    try:
        with path.open("rb") as file:
            place = _place(file)
            expected = file.read(64) if place is not None else b""
            if place is not None and _digest(file, place).encode() == expected:
                return
    except FileNotFoundError as error:
        raise DamagedTableError(f"{path} can't be read ({error}). Delete it and run again.", path) from None
    wrong = "it has no checksum, as every table of ours has" if place is None else "it is not what its checksum was made of"
    raise DamagedTableError(f"{path} can't be trusted as a table: {wrong}. Delete it and run again.", path)


def _place(file: Any) -> int | None:
    """Where the checksum of an open parquet file begins, and moves there; None if there is none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    end = file.read()
    start = size - 8 - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or start < 4:
        return None
    file.seek(start)
    found = file.read(size - 8 - start).rfind(_MARK)
    return None if found < 0 else int(file.seek(start + found + len(_MARK)))


def _digest(file: Any, place: int) -> str:
    """The SHA-256 of an open file but for the 64 bytes at ``place``."""
    digest = hashlib.sha256()
    file.seek(0)
    for left in range(place, 0, -_PIECE):
        digest.update(file.read(min(left, _PIECE)))
    file.seek(place + 64)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def write_sums(files: dict[str, bytes], path: Path) -> None:
    """Writes SHA-256 sums of ``files``, by their names, to ``path`` as `sha256sum` does, whose ``--check`` reads them."""
    write_text("".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()), path)


def read_summed(path: Path) -> bytes:
    """The content of the file at ``path``. Raises DamagedTableError where it differs from its sum in the list beside it."""
    sums = path.with_suffix(".sha256")
    try:
        content, listed = path.read_bytes(), sums.read_bytes()
    except FileNotFoundError as error:
        raise DamagedTableError(f"{path} can't be read ({error}). Delete it and run again.", path) from None
    if f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode() not in listed.splitlines(keepends=True):
        raise DamagedTableError(
            f"{path} can't be trusted: it has changed since it was written, on a damaged disk or by hand ({sums.name} has "
            "another sum). Delete it and run again.",
            path,
        )
    return content


def with_sum(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` of a JSON file with the SHA-256 of the rest as ``sha256``."""
    return {**content, "sha256": _sum(json.loads(json.dumps(content)))}  # as it will be read: a key is a string


def has_its_sum(content: dict[str, Any]) -> bool:
    """Whether ``content`` of a JSON file is what `with_sum` made."""
    return content.get("sha256") == _sum({key: value for key, value in content.items() if key != "sha256"})


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
