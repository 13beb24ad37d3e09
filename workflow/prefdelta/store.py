"""The store of requests and answers: what an endpoint has answered once is never asked, or paid for, again.

It lies outside of ``results/``, in the folder $PREFDELTA_STORE or else ``store/``, with a folder for each endpoint. The key of an
entry is a digest of everything that determines the answer. Each process appends to a file of its own, so that any number of
jobs can share a store, also on a network file system. To forget an endpoint's answers, delete its folder.
"""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from prefdelta.atomic import write_text
from prefdelta.errors import PrefdeltaError


class StoreError(PrefdeltaError):
    """The store can't be written."""


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Store:
    """The answers of one endpoint. Only the keys are held in memory, with the places of their entries."""

    def __init__(self, identity: dict[str, Any]) -> None:
        """``identity``: what determines the endpoint's answers besides the request. Reads the keys of all entries."""
        self.identity = identity
        self.folder = Path(os.environ.get("PREFDELTA_STORE") or "store") / _digest(identity)[:16]
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._segment = self.folder / f"{uuid.uuid4().hex}.jsonl"
        for segment in sorted(self.folder.glob("*.jsonl")):
            offset = 0
            with segment.open("rb") as lines:
                for line in lines:
                    # A line begins {"key": "<64 digits>": the texts need no parsing.
                    if line.startswith(b'{"key": "') and line.endswith(b"}\n"):
                        self._places[line[9:73]] = (segment, offset)
                    offset += len(line)

    def key(self, request: dict[str, Any]) -> str:
        """The key of a request: its whole body and the endpoint's identity."""
        return _digest([self.identity, request])

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer that is stored under ``key``. A damaged entry is none."""
        place = self._places.get(key.encode())
        if place is None:
            return None
        with place[0].open("rb") as segment:
            segment.seek(place[1])
            try:
                entry: dict[str, Any] = json.loads(segment.readline())
            except ValueError:
                return None
        response: dict[str, Any] = entry["response"]
        return response

    def put(self, request: dict[str, Any], response: dict[str, Any], seconds: float | None) -> None:
        """Appends an answer. ``seconds``: how long it took, None where that is not known. Raises StoreError."""
        key = self.key(request)
        entry: dict[str, Any] = {"key": key, "endpoint": self.identity, "request": request, "response": response}
        entry |= {"usage": response.get("usage"), "seconds": seconds}
        try:
            if not (about := self.folder / "endpoint.json").exists():
                write_text(json.dumps(self.identity, indent=1), about)
            with self._segment.open("ab") as segment:
                offset = segment.tell()
                segment.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise StoreError(f"can't write the store ({error}): make room, or set PREFDELTA_STORE to another folder") from None
        self._places[key.encode()] = (self._segment, offset)
