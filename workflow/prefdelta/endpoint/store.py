"""The store of requests and answers: what an endpoint has answered once is never asked, or paid for, again.

It lies outside of ``results/``, in the folder $PREFDELTA_STORE or else ``store/``, with a folder for each endpoint. The key of an
entry is a digest of everything that determines the answer. Each process appends to a file of its own, so that any number of
jobs can share a store, also on a network file system. Each line has a checksum: what is damaged is told, and asked again.

Who asks for a key claims it first, by a lock that ends with its process, so that two runs at once pay once. So it is on one
machine; on a network file system as far as that has POSIX locks and shows at once what another machine appended, which NFS may
do seconds late: what both ask within these seconds is paid twice. To forget an endpoint's answers, delete its folder.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import uuid
import zlib
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from prefdelta.endpoint.spending import Spending
from prefdelta.run.atomic import write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.run import RequestsRun

log = logging.getLogger(__name__)


class StoreError(PrefdeltaError):
    """The store can't be written."""


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# A line begins with its key and a checksum, so its texts need no parsing. Those from before there were checksums begin with key
# and endpoint.
_BEGIN = re.compile(rb'{"key": "(?P<key>[0-9a-f]{64})", (?:"crc32": "(?P<crc32>[0-9a-f]{8})", |"endpoint": )')
_RECENT = 1 << 14
_ALONE, _CLAIMS = 1 << 61, 1 << 62  # bytes that are locked, far behind all that are written
_OFFSET = 40  # bits of a place, which are enough for a segment of 1 TB; the others are the segment's number


def _checksum(key: bytes, rest: bytes | memoryview) -> int:
    return zlib.crc32(rest, zlib.crc32(key))


def _whole(line: bytes) -> re.Match[bytes] | None:
    """How ``line`` begins; None where it is damaged, or was torn as its writer was killed."""
    begin = _BEGIN.match(line)
    if not begin or not line.endswith(b"}\n"):
        return None
    damaged = begin["crc32"] and int(begin["crc32"], 16) != _checksum(begin["key"], memoryview(line)[begin.end() :])
    return None if damaged else begin


class _Places:
    """Where the entries of keys lie, in 16 bytes a key: the key's first 64 bits and the place. A later entry replaces others.

    Keys with equal beginnings would hide each other, so who reads an entry compares its key.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, np.uint64)  # ascending
        self._places = np.empty(0, np.uint64)
        self._recent: dict[int, int] = {}  # what is not among these yet

    def put(self, key: str, place: int) -> None:
        self._recent[int(key[:16], 16)] = place
        if len(self._recent) == _RECENT:
            keys = np.concatenate([self._keys, np.fromiter(self._recent.keys(), np.uint64)])
            places = np.concatenate([self._places, np.fromiter(self._recent.values(), np.uint64)])
            order = np.argsort(keys, kind="stable")
            self._keys, self._places = keys[order], places[order]
            self._recent.clear()

    def get(self, key: str) -> int | None:
        start = int(key[:16], 16)
        if (place := self._recent.get(start)) is not None:
            return place
        index = int(np.searchsorted(self._keys, np.uint64(start), "right")) - 1
        return int(self._places[index]) if index >= 0 and self._keys[index] == start else None


class Store:
    """The answers of one endpoint. Only where they lie is held in memory. A process has one at a time for each endpoint."""

    def __init__(self, identity: dict[str, Any], spending: Spending | None = None) -> None:
        """``identity``: what determines the endpoint's answers besides the request. Reads the keys of all entries.

        ``spending`` counts all of them, also those that are put later.
        """
        self.identity, self.spending = identity, spending or Spending("", RequestsRun(), "")
        self.folder = Path(os.environ.get("PREFDELTA_STORE") or "store") / _digest(identity)[:16]
        self._endpoint, self._learned = json.dumps(identity), self.folder / "learned.json"
        self._places = _Places()
        self._segments = [self.folder / f"{uuid.uuid4().hex}.jsonl"]  # this process's own is the first
        self._own: BufferedWriter | None = None
        # Grows by a byte with each entry of any process, which tells the others to look; its bytes beyond are locked as claims.
        self._claims, self._locks = self.folder / "claims", -1
        self._lockless, self._n_put = False, 0
        self._n_others: int | None = None  # entries that others had put when it was last looked
        self._read: dict[Path, tuple[int, int, int]] = {}  # of others' segments: number, bytes and lines that are known
        self._refresh()

    def key(self, request: dict[str, Any]) -> str:
        """The key of a request: its whole body and the endpoint's identity."""
        return _digest([self.identity, request])

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer that is stored under ``key``. A damaged entry is none."""
        place = self._places.get(key)
        if place is None:
            return None
        file, offset = self._segments[place >> _OFFSET], place & ((1 << _OFFSET) - 1)
        with file.open("rb") as segment:
            segment.seek(offset)
            line = segment.readline()
        begin = _whole(line)
        try:
            entry: dict[str, Any] = json.loads(line) if begin else {}
            # Without a checksum, the key tells at least that the request is what it was.
            if not begin or not (begin["crc32"] or entry["key"] == self.key(entry["request"])):
                raise ValueError
            response: dict[str, Any] = entry["response"]
        except (ValueError, KeyError):
            log.warning("%s, at byte %d: a damaged entry is left out, and asked for again", file, offset)
            return None
        return response if entry["key"] == key else None

    def put(self, key: str, request: str, response: dict[str, Any], seconds: float | None) -> None:
        """Appends the answer to a request. ``seconds``: how long it took, if known. Raises StoreError.

        ``request`` is its JSON text, in one line: to write that once more is a tenth of the client's processor time.
        """
        rest = json.dumps({"response": response, "usage": response.get("usage"), "seconds": seconds})
        checked = f'"endpoint": {self._endpoint}, "request": {request}, {rest[1:]}\n'.encode()
        line = f'{{"key": "{key}", "crc32": "{_checksum(key.encode(), checked):08x}", '.encode() + checked
        with self._writing():
            if self._own is None:
                if not (about := self.folder / "endpoint.json").exists():
                    write_text(json.dumps(self.identity, indent=1), about)
                self._own = self._segments[0].open("ab")  # for as long as this object lives: to open it is as slow as to write
            offset = self._own.tell()
            self._own.write(line)
            self._own.flush()  # to the system: a job that is killed loses nothing
            os.write(self._lock_file(), b".")
        self._n_put += 1
        self._places.put(key, offset)
        self.spending.count(line)

    def put_apart(self, request: str, response: dict[str, Any], seconds: float | None) -> None:
        """`put` of what is no whole answer, but was paid for: it counts, and nobody gets it."""
        self.put(uuid.uuid4().hex * 2, request, response, seconds)

    def learned(self) -> dict[str, list[str]]:
        """By model, what `learn` has taken note of: so what a server has answered is found again without asking it."""
        try:
            found = json.loads(self._learned.read_bytes())
            return {str(model): [str(key) for key in keys] for model, keys in found.items()}
        except OSError:
            return {}  # there is none; whether one can be written is told where it is
        except (ValueError, AttributeError, TypeError, RecursionError):
            log.warning("%s is damaged: what it said is found out anew", self._learned)
            return {}

    def learn(self, model: str, key: str) -> dict[str, list[str]]:
        """Takes note of a ``key`` of requests that ``model`` does not know. Returns all that is `learned`. Raises StoreError."""
        found = self.learned()  # by others, too: of two at once one may be lost, which costs a request
        found[model] = sorted({key, *found.get(model, ())})
        with self._writing():
            write_text(json.dumps(found, indent=1), self._learned)
        return found

    def claim(self, key: str) -> bool:
        """Whether ``key`` is this process's to ask; False while another one is asking for it. Raises StoreError.

        Who has claimed it knows all that others have put, so `get` may find it now. A claim ends with `release` or the process.
        """
        if not self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB, _byte(key)):
            return False
        self._refresh()
        return True

    def release(self, key: str) -> None:
        """Ends a claim."""
        self._locked(fcntl.LOCK_UN, _byte(key))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no other process is, and which knows all that others have put. Raises StoreError."""
        self._locked(fcntl.LOCK_EX, _ALONE)
        try:
            self._refresh()
            yield
        finally:
            self._locked(fcntl.LOCK_UN, _ALONE)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"can't write the store ({error}): make room, or set PREFDELTA_STORE to another folder") from None

    def _locked(self, operation: int, byte: int) -> bool:
        """Locks or frees a byte of the file of claims. Returns whether nobody else has it."""
        with self._writing():
            file = self._lock_file()
            try:
                fcntl.lockf(file, operation, 1, byte)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return False
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                if not self._lockless:
                    log.warning("%s lies where there are no locks: two runs at once may pay for the same answers", self.folder)
                self._lockless = True
        return True

    def _lock_file(self) -> int:
        # Opened once: to close any of a process's descriptors of a file ends all of its locks there.
        if self._locks < 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._locks = os.open(self._claims, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        return self._locks

    def _refresh(self) -> None:
        """Reads the keys of what other processes have put since the last time."""
        try:
            others = self._claims.stat().st_size - self._n_put
        except OSError:
            others = -1  # nobody has put anything since there are claims
        if others == self._n_others:
            return
        self._n_others = others
        for segment in sorted(self.folder.glob("*.jsonl")):
            if segment != self._segments[0]:
                self._read_on(segment)

    def _read_on(self, segment: Path) -> None:
        if segment not in self._read:
            self._segments.append(segment)
            self._read[segment] = len(self._segments) - 1, 0, 0
        number, offset, n_lines = self._read[segment]
        damaged = []
        if segment.stat().st_size > offset:
            with segment.open("rb") as lines:
                lines.seek(offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break  # its writer is about to end it, or was killed
                    n_lines += 1
                    if begin := _whole(line):
                        self._places.put(begin["key"].decode(), number << _OFFSET | offset)
                        self.spending.count(line)
                    else:
                        damaged.append(n_lines)
                    offset += len(line)
        if damaged:
            log.warning(
                "%s, line %d: a damaged entry is left out, and asked for again where it is needed (%d such lines in this file)",
                *(segment, damaged[0], len(damaged)),
            )
        self._read[segment] = number, offset, n_lines


def _byte(key: str) -> int:
    """The byte that stands for ``key`` in a file that is locked in part."""
    return _CLAIMS + int(key[:15], 16)
