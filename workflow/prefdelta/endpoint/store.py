"""The store of requests and answers: what an endpoint has answered once is never asked, or paid for, again.

It lies outside of ``results/``, in the folder $PREFDELTA_STORE or else ``store/``, with a folder for each endpoint. The key of an
entry is a digest of everything that determines the answer. Each process appends to a file of its own, so that any number of
jobs can share a store, also on a network file system. To forget an endpoint's answers, delete its folder.
"""

import hashlib
import json
import os
import re
import uuid
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from prefdelta.run.atomic import write_text
from prefdelta.run.errors import PrefdeltaError


class StoreError(PrefdeltaError):
    """The store can't be written."""


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# A line begins {"key": "<64 digits>": the texts need no parsing.
_LINE = re.compile(rb'{"key": "([0-9a-f]{64})".*}\n', re.DOTALL)
_RECENT = 1 << 14
_OFFSET = 40  # bits of a place, which are enough for a segment of 1 TB; the others are the segment's number


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
    """The answers of one endpoint. Only where they lie is held in memory."""

    def __init__(self, identity: dict[str, Any]) -> None:
        """``identity``: what determines the endpoint's answers besides the request. Reads the keys of all entries."""
        self.identity = identity
        self.folder = Path(os.environ.get("PREFDELTA_STORE") or "store") / _digest(identity)[:16]
        self._endpoint = json.dumps(identity)
        self._places = _Places()
        self._segments = sorted(self.folder.glob("*.jsonl"))
        for number, segment in enumerate(self._segments):
            offset = 0
            with segment.open("rb") as lines:
                for line in lines:
                    if found := _LINE.fullmatch(line):
                        self._places.put(found[1].decode(), number << _OFFSET | offset)
                    offset += len(line)
        self._segments.append(self.folder / f"{uuid.uuid4().hex}.jsonl")  # this process's own
        self._own: BufferedWriter | None = None

    def key(self, request: dict[str, Any]) -> str:
        """The key of a request: its whole body and the endpoint's identity."""
        return _digest([self.identity, request])

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer that is stored under ``key``. A damaged entry is none."""
        place = self._places.get(key)
        if place is None:
            return None
        with self._segments[place >> _OFFSET].open("rb") as segment:
            segment.seek(place & ((1 << _OFFSET) - 1))
            try:
                entry: dict[str, Any] = json.loads(segment.readline())
            except ValueError:
                return None
        response: dict[str, Any] = entry["response"]
        return response if entry["key"] == key else None

    def put(self, key: str, request: str, response: dict[str, Any], seconds: float | None) -> None:
        """Appends the answer to a request. ``seconds``: how long it took, if known. Raises StoreError.

        ``request`` is its JSON text, in one line: to write that once more is a tenth of the client's processor time.
        """
        rest = json.dumps({"response": response, "usage": response.get("usage"), "seconds": seconds})
        line = f'{{"key": "{key}", "endpoint": {self._endpoint}, "request": {request}, {rest[1:]}\n'
        try:
            if self._own is None:
                if not (about := self.folder / "endpoint.json").exists():
                    write_text(json.dumps(self.identity, indent=1), about)
                self._own = self._segments[-1].open("ab")  # for as long as this object lives: to open it is as slow as to write
            offset = self._own.tell()
            self._own.write(line.encode())
            self._own.flush()  # to the system: a job that is killed loses nothing
        except OSError as error:
            raise StoreError(f"can't write the store ({error}): make room, or set PREFDELTA_STORE to another folder") from None
        self._places.put(key, (len(self._segments) - 1) << _OFFSET | offset)
