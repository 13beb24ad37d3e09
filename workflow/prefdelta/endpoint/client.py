"""Asking an OpenAI-compatible endpoint many things at once, and nothing twice: what the store knows comes from there."""

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import Callable
from typing import Any

import httpx2
from aiohttp import ClientError
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAioHttpClient, Omit, RateLimitError

from prefdelta.endpoint.answers import Body, Choice, adapted, choices, declined, lacking, learn, retry_after
from prefdelta.endpoint.limit import Limit
from prefdelta.endpoint.servers import Connection
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store

log = logging.getLogger(__name__)

# For a client of the openai package: without the headers that tell servers about this machine.
UNTOLD: Any = {f"X-Stainless-{name}": Omit() for name in ("Arch", "Lang", "OS", "Package-Version", "Runtime", "Runtime-Version")}
_LONGEST_PAUSE = 120.0  # seconds; who is told to wait longer gives up
_CLAIMED = 0.2  # seconds until it is looked again whether another run has got an answer
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
    concurrency: int,
    retries: int,
    timeout: float,
) -> None:
    """Asks for chat completions of ``body(0)`` to ``body(n - 1)`` and hands each to ``answered`` with its number, as they come.

    What the store knows is not asked; what is answered is stored. Connection errors, timeouts (``timeout`` seconds a request),
    408, 409, 429 and 5xx are tried again up to ``retries`` times, after the time that the server names or else with exponential
    backoff; at 429 a try does not count if others got answers meanwhile. At most ``concurrency`` requests are under way, fewer
    where the server can't take so many (see `Limit`). Keys that the server does not know (see `adapted`) are done without. A
    request that it declines for its content or length has choices that say so, and is not stored. Raises EndpointError where
    the endpoint refuses requests, stays out of reach, or was started by this job and ended.
    """

    async def run() -> None:
        # No more connections than requests: those are ours to count. The time is, too: this transport calls a connection that is
        # refused or lost a timeout.
        transport = DefaultAioHttpClient(limits=httpx2.Limits(max_connections=concurrency))
        async with AsyncOpenAI(
            base_url=connection.base_url,
            api_key=connection.key,
            max_retries=0,
            timeout=None,
            default_headers=UNTOLD,
            http_client=transport,
        ) as api:
            await _Asker(connection, api, store, concurrency, retries, timeout).ask(n, body, answered)

    try:
        asyncio.run(run())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _Asker:
    """The requests of one call of `ask`, and what they have found out about the server."""

    def __init__(
        self, connection: Connection, api: AsyncOpenAI, store: Store, concurrency: int, retries: int, timeout: float
    ) -> None:
        self.connection, self.api, self.store = connection, api, store
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        self.lacks: set[str] = set()
        self.limit = Limit(concurrency)
        self.resume = 0.0  # when the next request may go out
        self.asking: dict[str, asyncio.Event] = {}
        self.done = self.sent = self.declined = self.tokens_in = self.tokens_out = 0

    async def ask(self, n: int, body: Callable[[int], Body], answered: Callable[[int, list[Choice]], None]) -> None:
        numbers = iter(range(n))

        async def work() -> None:
            for number in numbers:
                answered(number, await self._answer(body(number)))
                self.done += 1

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(n))
            await asyncio.wait([group.create_task(work()) for _ in range(self.concurrency)])
            watch.cancel()
        log.info(
            "%d answers, %d requests made for them, %d declined; tokens: %d read, %d written",
            *(n, self.sent, self.declined, self.tokens_in, self.tokens_out),
        )

    async def _watch(self, n: int) -> None:
        """Ends all where the server has ended, and says how far the work is."""
        started = told = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            self.connection.check()
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
        if (stored := self.store.get(key)) is not None:
            await asyncio.sleep(0)  # a long row of stored answers must not keep others from working
            return choices(stored)
        parts = adapted(body, self.lacks)
        if parts != [body]:
            return [choice for part in parts for choice in await self._answer(part)]
        self.asking[key] = asyncio.Event()
        claimed = False
        try:
            while not (claimed := self.store.claim(key)):  # another run asks just this
                await asyncio.sleep(_CLAIMED)
            if (stored := self.store.get(key)) is not None:
                return choices(stored)
            started = time.monotonic()
            text = json.dumps(body)
            async with self.store.spending.reserved(body):
                response, made = await self._send(text.encode())
                if len(made) >= body.get("n", 1):
                    self.store.put(key, text, response, time.monotonic() - started)
                    return made
                self.store.put_apart(text, response, time.monotonic() - started)
            missing = "n"  # it was passed over in silence
        except APIStatusError as error:
            lack = lacking(error.status_code, str(error.body), body)
            reason = declined(error.status_code, str(error.body))
            if reason:
                if not self.declined:
                    log.warning("%s declined a request: %s", self.connection.base_url, self._told(error))
                self.declined += 1
                return [Choice(declined=reason)] * body.get("n", 1)
            if not lack:
                raise EndpointError(f"{self.connection.base_url} failed: {self._told(error)}") from None
            missing = lack
        finally:
            if claimed:
                self.store.release(key)
            self.asking.pop(key).set()
        learn(self.lacks, missing, self.connection.base_url)
        return await self._answer(body)

    async def _send(self, body: bytes) -> tuple[dict[str, Any], list[Choice]]:
        """The response to one request, and its choices.

        Raises APIStatusError where it is refused for good, EndpointError where all tries have failed.
        """
        tries, sent = 0, self.sent
        while True:
            under_way = await self.limit.enter()
            while (wait := self.resume - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            started = time.monotonic()
            error: APIConnectionError | APIStatusError | ClientError | TimeoutError | ValueError
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self.api.post("/chat/completions", cast_to=httpx2.Response, content=body)
                response: dict[str, Any] = answer.json()
                made = choices(response)
            except (APIConnectionError, APIStatusError, ClientError, TimeoutError, ValueError) as failure:
                error = failure
            else:
                self.sent += 1
                self.limit.answered()
                usage = response.get("usage") or {}
                self.tokens_in += usage.get("prompt_tokens") or 0
                self.tokens_out += usage.get("completion_tokens") or 0
                return response, made
            finally:
                self.limit.leave()
            self.connection.check()
            status = 0
            if isinstance(error, APIStatusError):
                status = error.status_code
                if status not in (408, 409, 429) and status < 500:
                    raise error
            if status in (408, 429, 504) or isinstance(error, TimeoutError):
                self.limit.overloaded(started, under_way)
            pause = retry_after(error.response.headers) if isinstance(error, APIStatusError) else None
            if not (isinstance(error, RateLimitError) and self.sent > sent):
                tries += 1
            sent = self.sent
            if tries > self.retries or (pause or 0) > _LONGEST_PAUSE:
                raise EndpointError(f"{self.connection.base_url} failed after {self.retries} retries: {self._told(error)}")
            if isinstance(error, RateLimitError) and pause is not None:  # it says so to all
                self.resume = max(self.resume, time.monotonic() + pause)
            else:
                await asyncio.sleep(min(0.5 * 2**tries, 30) * random.uniform(0.75, 1) if pause is None else pause)

    def _told(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout:g} s"
        told = f"{error.status_code}: {error.body}" if isinstance(error, APIStatusError) else str(error.__cause__ or error)
        return told.replace(self.connection.key, "***")
