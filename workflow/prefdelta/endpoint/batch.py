"""Asking through a provider's Batch API (files and batches of the OpenAI API): half the price, an answer within a day.

A batch that was submitted outlives the job: its requests lie beside the store until its answers are in, so a job that starts
again waits for the same batch and never pays for a second one. https://developers.openai.com/api/docs/guides/batch
"""

import json
import logging
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from openai import (
    APIConnectionError,
    DefaultHttpxClient,
    InternalServerError,
    NotFoundError,
    OpenAI,
    OpenAIError,
    RateLimitError,
)
from openai.types import Batch
from pydantic import BaseModel

from prefdelta.endpoint.answers import Body, Choice, choices, stored_choices
from prefdelta.endpoint.client import LARGEST, UNTOLD, redirected
from prefdelta.endpoint.refusals import Failure, Refusal, Row
from prefdelta.endpoint.servers import Connection
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store
from prefdelta.run.atomic import write_text
from prefdelta.study.run import RequestsRun

log = logging.getLogger(__name__)

LARGEST_COUNT, LARGEST_BYTES = 50_000, 200_000_000  # of a batch, as the provider documents
POLL = 30.0  # seconds
_TAG = "prefdelta"  # a batch's metadata: the name of the file with its requests
_TRIES = 2  # batches that may leave a request without an answer


class _Response(BaseModel):
    status_code: int | None = None
    body: Any = None


class _Line(BaseModel):
    """A line of what a batch has answered."""

    custom_id: str
    response: _Response | None = None
    error: Any = None


def ask(
    connection: Connection,
    n: int,
    body: Callable[[int], Body],
    answered: Callable[[int, list[Choice]], None],
    *,
    store: Store,
    run: RequestsRun,
) -> None:
    """`client.ask` by batches. What a batch leaves open (it expires after 24 hours) goes into another one; what fails in two is
    a missing answer.

    While a batch is worked on, the provider may be out of reach for as long as ``run.give_up`` says. Raises EndpointError where
    it fails or cancels a batch, refuses requests as `client.ask` says, redirects them, or gives no further answers. What was
    answered until then is in the store.
    """
    with OpenAI(
        base_url=connection.base_url,
        api_key=connection.key,
        max_retries=run.retries,
        timeout=run.timeout,
        default_headers=UNTOLD,
        http_client=DefaultHttpxClient(event_hooks={"response": [_stays]}),
    ) as client:
        try:
            _Batches(connection, client, store, run.patience).ask(n, body, answered)
        except (OpenAIError, httpx2.HTTPError) as error:
            message = f"{connection.base_url}: {error}".replace(connection.key, "***")
            raise EndpointError(f"{message}. Batches that it has accepted go on there: run again to collect them") from None


def _stays(response: httpx2.Response) -> None:
    """Raises EndpointError where a provider redirects what it is sent. A file with answers may come from elsewhere."""
    if response.request.method != "GET" and (place := redirected(response)):
        raise EndpointError(f"{response.url} redirects requests {place}")


class _Batches:
    """The batches of one call of `ask`, and what they have found out about the provider."""

    def __init__(self, connection: Connection, client: OpenAI, store: Store, patience: float) -> None:
        self.connection, self.client, self.store, self.patience = connection, client, store, patience
        self.terms = connection.terms
        self.terms.keep(store)
        self.folder = store.folder / "batches"
        self.declined: dict[str, str] = {}  # by key
        self.failed: Counter[str] = Counter()  # by key: in how many batches

    def ask(self, n: int, body: Callable[[int], Body], answered: Callable[[int, list[Choice]], None]) -> None:
        def parts() -> Iterator[Body]:
            for number in range(n):
                yield from self._parts(body(number))

        while True:
            keys = {self.store.key(part) for part in parts()}
            with self.store.alone():  # two runs at once submit once
                open_keys = {key for key in keys if not self._known(key)}
                self.terms.answers = max(self.terms.answers, len(keys - open_keys) - len(self.declined))
                if not open_keys:
                    break
                known = self._known_so_far()
                files = [file for file in sorted(self.folder.glob("*.jsonl")) if not file.name.startswith(".")]
                waiting = [file for file in files if not open_keys.isdisjoint(_places(file))]
                submitted = {key for file in waiting for key in _places(file)}
                unasked = (part for part in parts() if self.store.key(part) in open_keys - submitted)
                waiting += self._write(self.store.spending.affordable(unasked, _bodies(files)))
                batches = [(file, self._submitted(file)) for file in waiting]
            collected = True
            for file, batch in batches:
                ended = self._ended(batch)
                with self.store.alone():
                    if file.exists():
                        self._collect(file, ended)
                    else:
                        collected = False  # another run has done so, and what it found out beside answers is not known here
            unmoved = collected and known == self._known_so_far()
            if unmoved and all(not self._known(key) for key in open_keys):
                raise EndpointError(
                    f"{self.connection.base_url} answered none of {len(open_keys)} requests of a batch: see the log"
                )
        self.terms.check()
        row = Row(self.connection.base_url)
        for number in range(n):
            made = [choice for part in self._parts(body(number)) for choice in self._choices(part)]
            row.add(number, body(number), made)
            answered(number, made)

    def _known_so_far(self) -> tuple[int, ...]:
        """What changes where a batch brought something, though no answer."""
        tried = self.failed.total() if self.terms.answers else 0
        return sum(map(len, self.terms.learned.values())), len(self.declined), tried

    def _parts(self, body: Body) -> list[Body]:
        return [body] if self._known(self.store.key(body)) else self.terms.parts(body)

    def _known(self, key: str) -> bool:
        return key in self.declined or stored_choices(self.store.get(key)) is not None

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
            request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": self.terms.sent(body)}
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
        told, heard = None, time.monotonic()
        while True:
            counts = batch.request_counts
            state = (batch.status, counts.completed if counts else 0, counts.failed if counts else 0)
            if state != told:
                log.info("batch %s is %s: %d answers, %d failures", batch.id, *state)
                told = state
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                return batch
            time.sleep(POLL)
            try:
                batch, heard = self.client.batches.retrieve(batch.id), time.monotonic()
            except (APIConnectionError, InternalServerError, RateLimitError):
                if time.monotonic() - heard > self.patience:
                    raise

    def _collect(self, file: Path, batch: Batch) -> None:
        """Stores what ``batch`` answered. Raises EndpointError where it failed or was cancelled, or too much was refused."""
        places = _places(file)
        dealt: set[str] = set()
        refused: list[tuple[str, Refusal, Body]] = []
        failing: dict[str, str] = {}  # how, by key
        for line, request in self._lines(file, places, batch):
            key = line.custom_id
            try:
                refusal = self._take(line, request, batch)
            except ValueError as error:
                log.warning("an answer can't be read, and is asked for again: %s", error)
                failing[key] = "an answer that can't be read"
                continue
            if refusal and refusal.passing:
                failing[key] = f"status {refusal.status}"
            elif not refusal or refusal.status >= 400:
                dealt.add(key)
                refused += [(key, refusal, request)] if refusal else []
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
        if batch.status == "failed":
            errors = "; ".join(error.message or "" for error in (batch.errors and batch.errors.data) or [])
            raise EndpointError(f"{self.connection.base_url}: batch {batch.id} failed: {errors}")
        if batch.status == "cancelled":
            raise EndpointError(
                f"{self.connection.base_url}: batch {batch.id} was cancelled. Run again to submit what it has not answered"
            )
        for key, refusal, request in refused:
            if self.terms.puzzled(refusal, request):
                self.terms.learn("n", request)  # the next batch shows whether it was that
            elif reason := self.terms.refuse(refusal, request):
                self.declined[key] = reason
        # What has expired was not tried.
        tried = places if batch.status == "completed" else failing
        self._fail({key: failing.get(key, "no line in a batch") for key in places if key in tried and key not in dealt})

    def _lines(self, file: Path, places: dict[str, int], batch: Batch) -> Iterator[tuple[_Line, Body]]:
        """The lines that ``batch`` has answered with, and their requests, which stand in ``file`` at ``places``.

        Lines that can't be read are left out with a warning. Raises EndpointError where there are no others.
        """
        n_read = n_bad = 0
        with file.open("rb") as requests:
            for identifier in filter(None, (batch.output_file_id, batch.error_file_id)):
                for number, text in enumerate(self._download(identifier), 1):
                    try:
                        line = _read(text, places)
                    except ValueError as error:
                        n_bad += 1
                        if n_bad == 1:
                            log.warning("batch %s: file %s, line %d is no answer: %s", batch.id, identifier, number, error)
                        continue
                    n_read += 1
                    requests.seek(places[line.custom_id])
                    yield line, json.loads(requests.readline())["body"]
        if n_bad and not n_read:
            raise EndpointError(
                f"{self.connection.base_url}: batch {batch.id} has no line that can be read. Run again to download it again; to "
                f"submit its requests again, and pay for them again, delete {file}"
            )
        if n_bad:
            log.warning("batch %s: %d lines are left out; requests without an answer are asked again", batch.id, n_bad)

    def _fail(self, kinds: dict[str, str]) -> None:
        """Counts a try of each key of ``kinds``, which tell how it failed; after `_TRIES` it is a missing answer."""
        for key, kind in kinds.items():
            if self._known(key):
                continue
            self.failed[key] += 1
            if self.failed[key] >= _TRIES and self.terms.answers:
                told = f"failed in {_TRIES} batches: {kind}"
                self.declined[key] = self.terms.fail(Failure(told, kind, meanwhile=True, own=True))

    def _take(self, line: _Line, request: Body, batch: Batch) -> Refusal | None:
        """Stores the answer in one line of a batch's output. Returns why there is none. Raises ValueError for what is none."""
        response = line.response or _Response()
        if response.status_code != 200:
            text = json.dumps([response.body, line.error]).replace(self.connection.key, "***")
            return Refusal(response.status_code or 0, text)
        made, key = choices(response.body), line.custom_id
        whole = len(made) >= request.get("n", 1)
        if not whole:  # it was paid for
            self.terms.learn("n", request)
            key = self.store.key({"batch": batch.id, "request": key})
        if stored_choices(self.store.get(key)) is None:  # else a job was killed while it collected this batch
            self.store.put(key, json.dumps(request), response.body, None)
            if whole:
                self.terms.answers += 1
                self.terms.plural |= len(made) > 1
        return None

    def _download(self, identifier: str) -> Iterator[bytes]:
        """The lines of a file at the provider. Of one that is too long there is only the beginning."""
        with tempfile.TemporaryFile() as copy:
            with self.client.files.with_streaming_response.content(identifier) as response:
                for chunk in response.iter_bytes():
                    copy.write(chunk)
            copy.seek(0)
            while line := copy.readline(LARGEST + 1):
                if line.strip():
                    yield line
                while len(line) > LARGEST and not line.endswith(b"\n"):
                    line = copy.readline(LARGEST + 1)


def _read(text: bytes, places: dict[str, int]) -> _Line:
    """A line about one of the requests in ``places``. Raises ValueError where it is none."""
    if len(text) > LARGEST:
        raise ValueError(f"it is longer than {LARGEST >> 20} MiB")
    try:
        line = _Line.model_validate(json.loads(text))
    except RecursionError:
        raise ValueError("it has too many brackets") from None
    if line.custom_id not in places:
        raise ValueError("it answers what was not asked")
    return line


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
