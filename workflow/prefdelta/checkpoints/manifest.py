"""The manifest of a checkpoint folder: written last, with a hash of every file, so that a folder has one file target."""

import hashlib
import json
from pathlib import Path
from typing import Any

from prefdelta.run.atomic import write_text
from prefdelta.run.errors import DamagedError
from prefdelta.run.job import versions
from prefdelta.tables.checksum import has_its_sum, with_sum

HASHED_BYTES = 256 * 2**20


class ManifestError(DamagedError):
    """A checkpoint folder does not hold what its manifest says."""


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(path: Path | str, content: dict[str, Any]) -> None:
    """Writes ``content`` with the hashes of all files of the manifest's folder (``files``), library versions and its own."""
    path = Path(path)
    files = {
        str(file.relative_to(path.parent)): sha256(file)
        for file in sorted(path.parent.rglob("*"))
        if file.is_file() and file != path and not file.name.startswith(".")
    }
    sizes = {name: (path.parent / name).stat().st_size for name in files}
    content = {**content, "versions": versions(), "files": files, "bytes": sizes}
    write_text(json.dumps(with_sum(content), indent=1, sort_keys=True, allow_nan=False), path)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The manifest at ``path``, for those who need what it says and not the files beside it. Raises ManifestError."""

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=constant)
        if not content["files"].keys() == content["bytes"].keys():
            raise ValueError("`files` and `bytes` differ")
    except OSError as error:
        raise ManifestError(f"{path} can't be read ({error}). Run again what makes it.", path) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise ManifestError(f"{path} is no manifest ({type(error).__name__}: {error}). Delete it and run again.", path) from None
    if not has_its_sum(content):
        raise ManifestError(f"{path} is not what its checksum was made of. Delete it and run again.", path)
    return content


def checked_folder(path: Path | str) -> Path:
    """The checkpoint folder of the manifest at ``path``, after every file that it names was checked.

    Files of more than `HASHED_BYTES` are compared in size only: an 8B model is read in many jobs. Raises ManifestError where one
    differs.
    """
    path = Path(path)
    content = read_manifest(path)
    for name, expected in content["files"].items():
        file = path.parent / name
        size = content["bytes"][name]
        same = file.exists() and file.stat().st_size == size and (size > HASHED_BYTES or sha256(file) == expected)
        if not same:
            state = "has changed since it was written" if file.exists() else "is missing"
            raise ManifestError(f"{file} {state}, so the checkpoint can't be trusted. Delete {path} and run again.", path)
    return path.parent
