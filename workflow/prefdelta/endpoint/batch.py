"""Asking through a provider's Batch API (files and batches of the OpenAI API): half the price, an answer within a day.

A batch that was submitted outlives the job: its requests lie beside the store until its answers are in, so a job that starts
again waits for the same batch and never pays for a second one. https://developers.openai.com/api/docs/guides/batch
"""

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openai import NotFoundError, OpenAI, OpenAIError
from openai.types import Batch

from prefdelta.endpoint.answers import Body, Choice, adapted, choices, declined, lacking, learn
from prefdelta.endpoint.client import UNTOLD
from prefdelta.endpoint.servers import Connection
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store
from prefdelta.run.atomic import write_text

log = logging.getLogger(__name__)

LARGEST_COUNT, LARGEST_BYTES = 50_000, 200_000_000  # of a batch, as the provider documents
POLL = 30.0  # seconds
_TAG = "prefdelta"  # a batch's metadata: the name of the file with its requests


def ask(
    connection: Connection,
    n: int,
    body: Callable[[int], Body],
    answered: Callable[[int, list[Choice]], None],
    *,
    store: Store,
    retries: int,
    timeout: float,
) -> None:
    """`client.ask` by batches. What a batch leaves open (it expires after 24 hours) goes into another one.

    Raises EndpointError where the provider fails or cancels a batch, refuses a request for what it asks for, or gives no further
    answers. What was answered until then is in the store.
    """
    with OpenAI(
        base_url=connection.base_url, api_key=connection.key, max_retries=retries, timeout=timeout, default_headers=UNTOLD
    ) as client:
        try:
            _Batches(connection, client, store).ask(n, body, answered)
        except OpenAIError as error:
            message = f"{connection.base_url}: {error}".replace(connection.key, "***")
            raise EndpointError(f"{message}. Batches that it has accepted go on there: run again to collect them") from None


class _Batches:
    """The batches of one call of `ask`, and what they have found out about the provider."""

    def __init__(self, connection: Connection, client: OpenAI, store: Store) -> None:
        self.connection, self.client, self.store = connection, client, store
        self.folder = store.folder / "batches"
        self.lacks: set[str] = set()
        self.declined: dict[str, str] = {}  # by key

    def ask(self, n: int, body: Callable[[int], Body], answered: Callable[[int, list[Choice]], None]) -> None:
        def parts() -> Iterator[Body]:
            for number in range(n):
                yield from self._parts(body(number))

        while True:
            open_keys = {key for part in parts() if not self._known(key := self.store.key(part))}
            if not open_keys:
                break
            known = (len(self.lacks), len(self.declined))
            files = [file for file in sorted(self.folder.glob("*.jsonl")) if not file.name.startswith(".")]
            waiting = [file for file in files if not open_keys.isdisjoint(_places(file))]
            submitted = {key for file in waiting for key in _places(file)}
            unasked = (part for part in parts() if self.store.key(part) in open_keys - submitted)
            waiting += self._write(self.store.spending.affordable(unasked, _bodies(files)))
            batches = [(file, self._submitted(file)) for file in waiting]
            for file, batch in batches:
                self._collect(file, self._ended(batch))
            if known == (len(self.lacks), len(self.declined)) and all(not self._known(key) for key in open_keys):
                raise EndpointError(
                    f"{self.connection.base_url} answered none of {len(open_keys)} requests of a batch: see the log"
                )
        for number in range(n):
            answered(number, [choice for part in self._parts(body(number)) for choice in self._choices(part)])

    def _parts(self, body: Body) -> list[Body]:
        return [body] if self._known(self.store.key(body)) else adapted(body, self.lacks)

    def _known(self, key: str) -> bool:
        return key in self.declined or self.store.get(key) is not None

    def _choices(self, body: Body) -> list[Choice]:
        key = self.store.key(body)
        if key in self.declined:
            return [Choice(declined=self.declined[key])] * body.get("n", 1)
        return choices(self.store.get(key))

    def _write(self, bodies: Iterator[Body]) -> list[Path]:
        """Writes each of ``bodies`` once, in files that the provider accepts."""
        files: list[Path] = []
        lines: dict[str, str] = {}
        size = 0

        def flush() -> None:
            if lines:
                files.append(self.folder / f"{uuid.uuid4().hex}.jsonl")
                write_text("".join(lines.values()), files[-1])
                lines.clear()

        for body in bodies:
            key = self.store.key(body)
            request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
            line = json.dumps(request) + "\n"
            if len(lines) == LARGEST_COUNT or size + len(line) > LARGEST_BYTES:
                flush()
                size = 0
            if key not in lines:
                lines[key] = line
                size += len(line)
        flush()
        return files

    def _submitted(self, file: Path) -> Batch:
        """The batch of the requests in ``file``; it is created where that has not happened yet."""
        note = file.with_suffix(".json")
        if note.exists():
            identifier = json.loads(note.read_text(encoding="utf-8"))["batch"]
            try:
                return self.client.batches.retrieve(identifier)
            except NotFoundError:
                raise EndpointError(
                    f"{self.connection.base_url} does not know batch {identifier} (another account's key?). "
                    f"To submit its requests again, and pay for them again, delete {file}"
                ) from None
        # A job that was killed just here may have created it.
        found = [batch for batch in self.client.batches.list(limit=100) if (batch.metadata or {}).get(_TAG) == file.stem]
        if found:
            batch = found[0]
        else:
            uploaded = self.client.files.create(file=file, purpose="batch")
            batch = self.client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_TAG: file.stem},
            )
        write_text(json.dumps({"batch": batch.id}), note)
        log.info("batch %s: submitted", batch.id)
        return batch

    def _ended(self, batch: Batch) -> Batch:
        """``batch`` once it has come to an end, whatever that is."""
        told = None
        while True:
            counts = batch.request_counts
            state = (batch.status, counts.completed if counts else 0, counts.failed if counts else 0)
            if state != told:
                log.info("batch %s is %s: %d answers, %d failures", batch.id, *state)
                told = state
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                return batch
            time.sleep(POLL)
            batch = self.client.batches.retrieve(batch.id)

    def _collect(self, file: Path, batch: Batch) -> None:
        """Stores what ``batch`` answered. Raises EndpointError where it failed or was cancelled, or a request was refused."""
        places = _places(file)
        refused = ""
        with file.open("rb") as requests:
            for identifier in filter(None, (batch.output_file_id, batch.error_file_id)):
                for line in self._download(identifier):
                    requests.seek(places[line["custom_id"]])
                    request = json.loads(requests.readline())["body"]
                    refused = self._take(line, request) or refused
        if batch.status == "failed":
            errors = "; ".join(error.message or "" for error in (batch.errors and batch.errors.data) or [])
            refused = f"batch {batch.id} failed: {errors}"
        elif batch.status == "cancelled":
            refused = f"batch {batch.id} was cancelled. Run again to submit what it has not answered"
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
        if refused:
            raise EndpointError(f"{self.connection.base_url}: {refused}")

    def _take(self, line: dict[str, Any], request: Body) -> str:
        """Stores one line of a batch's output. Returns why the request was refused for good, if it was."""
        response = line.get("response") or {}
        status: int = response.get("status_code") or 0
        content: Any = response.get("body")
        if status == 200:
            try:
                complete = len(choices(content)) >= request.get("n", 1)
            except ValueError as error:
                return str(error)
            if complete:
                self.store.put(line["custom_id"], json.dumps(request), content, None)
            else:
                self.store.put_apart(json.dumps(request), content, None)
                learn(self.lacks, "n", self.connection.base_url)
            return ""
        text = json.dumps([content, line.get("error")])
        if reason := declined(status, text):
            log.warning("a request was declined (%s): %s", reason, text)
            self.declined[line["custom_id"]] = reason
        elif lack := lacking(status, text, request):
            learn(self.lacks, lack, self.connection.base_url)
        elif 400 <= status < 500 and status not in (408, 409, 429):
            return f"a request of the batch was refused ({status}): {text}"
        return ""  # it failed or expired, and is asked again

    def _download(self, identifier: str) -> Iterator[dict[str, Any]]:
        with tempfile.NamedTemporaryFile() as copy:
            with self.client.files.with_streaming_response.content(identifier) as response:
                response.stream_to_file(copy.name)
            yield from map(json.loads, copy)


def _bodies(files: list[Path]) -> Iterator[Body]:
    for file in files:
        with file.open("rb") as lines:
            yield from (json.loads(line)["body"] for line in lines)


def _places(file: Path) -> dict[str, int]:
    """Where in a file of requests each one begins, by key."""
    places, offset = {}, 0
    with file.open("rb") as lines:
        for line in lines:
            places[line[15:79].decode()] = offset  # after {"custom_id": "
            offset += len(line)
    return places
