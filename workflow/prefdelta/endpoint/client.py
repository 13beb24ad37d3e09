"""Asking an OpenAI-compatible endpoint many things at once, and nothing twice: what the store knows comes from there."""

import asyncio
import hashlib
import json
import logging
import math
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx2
from aiohttp import ClientConnectorDNSError, ClientError, ClientSSLError
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAioHttpClient, Omit

from prefdelta.endpoint.answers import Body, Choice, choices, stored_choices, tokens
from prefdelta.endpoint.limit import Limit
from prefdelta.endpoint.refusals import Failure, Refusal, Row
from prefdelta.endpoint.servers import Connection
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store
from prefdelta.study.run import RequestsRun

log = logging.getLogger(__name__)

# For a client of the openai package: without the headers that tell servers about this machine.
UNTOLD: Any = {f"X-Stainless-{name}": Omit() for name in ("Arch", "Lang", "OS", "Package-Version", "Runtime", "Runtime-Version")}
LEAST_PAUSE = 0.5  # seconds between two tries, whatever a server says
LARGEST = 16 << 20  # bytes of an answer: a hundred times what a model writes; also a bomb must fit into memory, for each request
_CLAIMED = 0.2  # seconds until it is looked again whether another run has got an answer
_OF_THE_WAY = {"content-encoding", "content-length", "transfer-encoding"}  # headers
PROGRESS = 30.0  # seconds between two lines in the log


def request_seed(*parts: object) -> int:
    """A seed for a request, from all that tells it from others, with room for a thousand successive ones within 32 bits.

    Servers draw from a generator that begins with the seed: requests with equal seeds would err alike.
    """
    text = json.dumps(parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % (2**31 - 1000)


def ask(
    connection: Connection,
    n: int,
    body: Callable[[int], Body],
    answered: Callable[[int, list[Choice]], None],
    *,
    store: Store,
    run: RequestsRun,
) -> None:
    """Asks for chat completions of ``body(0)`` to ``body(n - 1)`` and hands each to ``answered`` with its number, as they come.

    What the store knows is not asked; what is answered is stored. Connection errors, timeouts (``run.timeout``), 408, 409, 425
    and 5xx are tried again up to ``run.retries`` times, 429 as long as it takes, after the time that the server names or else
    with exponential backoff, at least half a second. At most ``run.concurrency`` requests are under way, fewer where the server
    can't take so many (see `Limit`). Keys that the server does not know are done without where that changes nothing (see
    `Terms`). A request that it refuses, or that fails at each try, while it answers others, has choices that say so, and is not
    stored.

    Raises EndpointError where the endpoint refuses too many requests, many in a row (`Row`), or one for a reason that holds for
    all, as a want of money; where it fails all that it is asked, or redirects it; where an address or a certificate is wrong;
    where it stays out of reach, or answers nothing at all for as long as ``run.give_up`` says; and where it was started by this
    job and ended.
    """

    async def asked() -> None:
        transport = _Bounded(
            limits=httpx2.Limits(max_connections=run.concurrency),  # no more connections than requests: those are ours to count
            follow_redirects=False,  # which would carry the texts to somebody else
            trust_env=connection.server is None,  # no proxy for a server of our own
        )
        async with AsyncOpenAI(
            base_url=connection.base_url,
            api_key=connection.key,
            max_retries=0,
            timeout=None,  # so is the time
            default_headers=UNTOLD,
            http_client=transport,
        ) as api:
            await _Asker(connection, api, store, run).ask(n, body, answered)

    try:
        asyncio.run(asked())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def redirected(response: httpx2.Response) -> str | None:
    """Where to ``response`` redirects its request, if it does, and what to do: the end of a message."""
    if not response.has_redirect_location:
        return None
    place = response.url.join(response.headers["Location"]).copy_with(query=None, userinfo=b"")
    return f"to {place}, where none is sent: correct base_url if you trust it"


class _Bounded(DefaultAioHttpClient):
    """Reads each answer up to `LARGEST` bytes, unpacked. Raises ValueError for a larger one."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = await super().send(request, **{**options, "stream": True})
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > LARGEST:
                    raise ValueError(f"an answer of more than {LARGEST >> 20} MiB")
        finally:
            await response.aclose()
        headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_WAY}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(content), request=request)


class _Asker:
    """The requests of one call of `ask`."""

    def __init__(self, connection: Connection, api: AsyncOpenAI, store: Store, run: RequestsRun) -> None:
        self.connection, self.api, self.store, self.run = connection, api, store, run
        self.terms = connection.terms
        self.terms.keep(store)
        self.limit = Limit(run.concurrency)
        self.resume = 0.0  # when the next request may go out
        self.asking: dict[str, asyncio.Event] = {}
        self.singling, self.singled = asyncio.Lock(), False
        self.waiting, self.heard, self.trouble = 0, 0.0, "no answer yet"
        self.done = self.sent = self.tokens_in = self.tokens_out = 0

    async def ask(self, n: int, body: Callable[[int], Body], answered: Callable[[int, list[Choice]], None]) -> None:
        numbers, row = iter(range(n)), Row(self.connection.base_url)

        async def work() -> None:
            for number in numbers:
                asked = body(number)
                made = await self._answer(asked)
                row.add(number, asked, made)
                answered(number, made)
                self.done += 1

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(n))
            await asyncio.wait([group.create_task(work()) for _ in range(self.run.concurrency)])
            watch.cancel()
        self.terms.check()
        log.info(
            "%d answers, %d requests made for them, %d declined; tokens: %d read, %d written",
            *(n, self.sent, self.terms.declined + self.terms.refused, self.tokens_in, self.tokens_out),
        )

    async def _watch(self, n: int) -> None:
        """Ends all where the server has ended or answers nothing any more, and says how far the work is."""
        started = told = time.monotonic()
        while True:
            await asyncio.sleep(min(0.5, self.run.patience / 10))
            self.connection.check()
            if self.waiting and time.monotonic() - self.heard > self.run.patience:
                raise EndpointError(
                    f"{self.connection.base_url} has answered nothing for {self.run.patience / 60:g} minutes ({self.trouble}). "
                    "What it answered before is kept: run again once it works, or raise `give_up` under `run`"
                )
            if time.monotonic() - told > PROGRESS and self.done:
                told = time.monotonic()
                seconds = told - started
                rates = [count / seconds for count in (self.sent, self.tokens_in, self.tokens_out)]
                left = seconds / self.done * (n - self.done)
                log.info(
                    "%d of %d answers, %.1f requests/s, tokens/s: %.0f read, %.0f written; about %.0f s left",
                    *(self.done, n, *rates, left),
                )

    async def _answer(self, body: Body) -> list[Choice]:
        """The answer to ``body``, in one request or in as many as the server needs it to be."""
        key = self.store.key(body)
        while key in self.asking:  # somebody asks just this
            await self.asking[key].wait()
        if (known := stored_choices(self.store.get(key))) is not None:
            self.terms.answers += 1
            await asyncio.sleep(0)  # a long row of stored answers must not keep others from working
            return known
        parts = self.terms.parts(body)
        if parts != [body]:
            return [choice for part in parts for choice in await self._answer(part)]
        n, sent = body.get("n", 1), self.terms.sent(body)
        self.asking[key] = asyncio.Event()
        claimed = False
        try:
            while not (claimed := self.store.claim(key)):  # another run asks just this
                await asyncio.sleep(_CLAIMED)
            if (known := stored_choices(self.store.get(key))) is not None:
                return known
            started = time.monotonic()
            text = json.dumps(sent)
            async with self.store.spending.reserved(sent):
                response, made = await self._send(text.encode())
                if len(made) >= n:
                    self.store.put(key, text, response, time.monotonic() - started)
                    self.terms.answers += 1
                    self.terms.plural |= n > 1
                    return made
                self.store.put_apart(text, response, time.monotonic() - started)
            self.terms.learn("n", body)  # it was passed over in silence
        except Refusal as refusal:
            if self.terms.puzzled(refusal, sent) and await self._makes_one_only(body):
                self.terms.learn("n", body)
            elif reason := self.terms.refuse(refusal, sent):
                return [Choice(declined=reason)] * n
        except Failure as failure:
            return [Choice(declined=self.terms.fail(failure))] * n
        finally:
            if claimed:
                self.store.release(key)
            self.asking.pop(key).set()
        return await self._answer(body)

    async def _makes_one_only(self, body: Body) -> bool:
        """Whether a server that refuses ``body``, and does not say why, answers it where one choice is asked for: tried once."""
        async with self.singling:
            if not self.singled and "n" not in self.terms.lacks(body):
                self.singled = True
                first = {key: value for key, value in body.items() if key != "n"}
                if (await self._answer(first))[0].declined is None:
                    self.terms.learn("n", body)
            return "n" in self.terms.lacks(body)

    async def _send(self, body: bytes) -> tuple[dict[str, Any], list[Choice]]:
        """The response to one request, and its choices.

        Raises Refusal where it is refused for good, Failure where all tries have failed, EndpointError where others would, too.
        """
        if not self.waiting:
            self.heard = time.monotonic()  # nobody was asked until now
        self.waiting += 1
        try:
            return await self._tried(body)
        finally:
            self.waiting -= 1

    async def _tried(self, body: bytes) -> tuple[dict[str, Any], list[Choice]]:
        tries, counted, before = 0, 0, self.sent
        while True:
            under_way = await self.limit.enter()
            while (wait := self.resume - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            started = time.monotonic()
            error: Exception
            try:
                response = await self._post(body)
                made = choices(response)
            except APIConnectionError as failure:
                error = _cause(failure)
            except (Refusal, TimeoutError, ValueError) as failure:
                error = failure
            else:
                self.sent, self.heard = self.sent + 1, time.monotonic()
                self.limit.answered()
                read, written = tokens(response)
                self.tokens_in += read or 0
                self.tokens_out += written or 0
                return response, made
            finally:
                self.limit.leave()
            self.connection.check()
            self.trouble, pause, status = self._told(error), None, 0
            if isinstance(error, Refusal):
                status, pause = error.status, error.pause
                if not error.passing:
                    self.heard = time.monotonic()
                    raise error
            elif _permanent(error) and not self.terms.answers:
                raise EndpointError(f"{self.connection.base_url} can't be reached: {self.trouble}")
            if status in (408, 429, 504) or isinstance(error, TimeoutError):
                self.limit.overloaded(started, under_way)
            tries, counted = tries + 1, counted + (status != 429)
            if counted > self.run.retries:
                told = f"failed after {self.run.retries} retries: {self.trouble}"
                own = status == 500 or isinstance(error, ValueError)
                raise Failure(told, _kind(error, status), meanwhile=self.sent > before, own=own)
            if pause is None or pause < LEAST_PAUSE:
                pause = LEAST_PAUSE * min(2**tries, 60) * random.uniform(0.75, 1)
            elif status == 429:  # it says so to all
                self.resume = max(self.resume, time.monotonic() + pause)
                pause = 0
            if max(pause, self.resume - time.monotonic()) > self.run.patience:
                told = "for ever" if math.isinf(self.resume + pause) else "longer than `give_up` allows"
                raise EndpointError(f"{self.connection.base_url} asks to be left alone {told}: {self.trouble}")
            await asyncio.sleep(pause)

    async def _post(self, body: bytes) -> dict[str, Any]:
        """The object with which the server answers. Raises Refusal; ValueError where it is none; errors of the connection."""
        try:
            async with asyncio.timeout(self.run.timeout):
                response = await self.api.post("/chat/completions", cast_to=httpx2.Response, content=body)
        except APIStatusError as error:
            response = error.response
        if place := redirected(response):
            raise Refusal(response.status_code, f"requests are redirected {place}")
        if not response.is_success:
            raise Refusal(response.status_code, self._public(response.text), response.headers)
        try:
            answer = json.loads(response.content)
        except RecursionError:
            raise ValueError("an answer with too many brackets") from None
        if not isinstance(answer, dict):
            raise ValueError(f"not a chat completion: {str(answer)[:300]}")
        if "error" in answer and not answer.get("choices"):  # so some report what went wrong after they had begun to answer
            told = answer["error"]
            code = told.get("code") if isinstance(told, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise Refusal(status, self._public(json.dumps(answer)), response.headers)
        return answer

    def _told(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.run.timeout:g} s"
        return self._public(str(error) or type(error).__name__)

    def _public(self, text: str) -> str:
        return text.replace(self.connection.key, "***")


def _cause(error: Exception) -> Exception:
    """What lies below the errors of the openai package and of its transport, to which any lost connection is a timeout."""
    while isinstance(error.__cause__, Exception) and not isinstance(error, ClientError):
        error = error.__cause__
    return error


def _kind(error: Exception, status: int) -> str:
    """How a try failed, in few words."""
    if status:
        return f"status {status}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return "no answer that can be read" if isinstance(error, ValueError) else "a lost connection"


def _permanent(error: Exception) -> bool:
    """Whether a connection failed for a reason that no other try mends: a certificate, a name that does not exist, no URL."""
    if isinstance(error, ClientConnectorDNSError):
        return error.os_error.errno in (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_FAIL)
    return isinstance(error, (ClientSSLError, httpx2.UnsupportedProtocol, httpx2.InvalidURL))
