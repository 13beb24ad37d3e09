"""Asking an OpenAI-compatible endpoint many things at once, and nothing twice: what the store knows comes from there."""

import asyncio
import contextlib
import email.utils
import hashlib
import importlib
import json
import logging
import math
import os
import random
import re
import secrets
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from prefdelta.checkpoints.manifest import read_manifest
from prefdelta.endpoint.serving import EndpointError, serving
from prefdelta.endpoint.store import Store
from prefdelta.run.processes import free_port
from prefdelta.run.provenance import PACKAGE, code_digest

log = logging.getLogger(__name__)

Body = dict[str, Any]
# What vLLM's flags (each with one value or none) change in speed or memory only.
_SPEED = {
    "--gpu-memory-utilization",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--enforce-eager",
    "--enable-prefix-caching",
    "--disable-log-stats",
    "--uvicorn-log-level",
}
_LONGEST_PAUSE = 120.0  # seconds; who is told to wait longer gives up
PROGRESS = 30.0  # seconds between two lines in the log
_FIRST = 8  # requests under way at the start
_LESS = 0.7  # of the requests under way go on after an overload
_PATIENCE = 50  # round trips before one more is tried where that was too many


@dataclass(frozen=True)
class Connection:
    """How to reach an endpoint. ``identity`` is what determines its answers besides the request: no port, no key."""

    base_url: str
    key: str = field(repr=False)
    identity: dict[str, Any]
    server: subprocess.Popen[bytes] | None = None
    log_file: Path | str = ""

    def check(self) -> None:
        """Raises EndpointError where the server that this job has started is no longer there."""
        if self.server and self.server.poll() is not None:
            raise EndpointError(f"the server ended with exit code {self.server.returncode} during the work: see {self.log_file}")


@dataclass(frozen=True)
class Choice:
    """One choice of an answer. ``n_tokens``: as the server counts, if it does. ``declined``: why there is no answer."""

    content: str | None = None
    reasoning: str = ""
    finish_reason: str = "stop"
    n_tokens: int | None = None
    declined: str | None = None


@contextlib.contextmanager
def connected(
    endpoint: Mapping[str, Any], *, model: str, checkpoint: Path | None, threads: int, log_file: Path | str
) -> Iterator[Connection]:
    """A connection to ``endpoint``, as the configuration describes it; a server that it names runs for as long as the block.

    Kinds: ``url`` {base_url, api_key_env}; ``vllm`` {gpus, dtype, max_model_len, flags, patience}, which serves the folder
    ``checkpoint`` under the name ``model``; ``transformers`` {}, likewise; ``microworld`` {noise, unparsable}. A server's output
    goes to ``log_file``.
    Raises EndpointError.
    """
    if endpoint["kind"] == "url":
        variable, base_url = endpoint["api_key_env"], endpoint["base_url"].rstrip("/")
        if not os.environ.get(variable):
            raise EndpointError(f"the endpoint {base_url} needs its key in ${variable}")
        yield Connection(base_url, os.environ[variable], {"kind": "url", "base_url": base_url})
        return
    port, key = free_port(), secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    if endpoint["kind"] == "microworld":
        code = json.loads(code_digest(PACKAGE / "microworld/server.py"))
        del code["judge/rubric.py"]  # the oracle knows the names of the dimensions, which are in each request, but not the words
        identity = {**endpoint, "code": code}
        flags = ["--noise", str(endpoint["noise"]), "--unparsable", str(endpoint["unparsable"])]
        command = [sys.executable, "-m", "prefdelta.microworld.server", "--port", str(port), *flags]
        environment, patience = dict(os.environ), 60.0
    elif checkpoint is None:
        raise EndpointError(f"a server of {model} needs the folder of a checkpoint")
    elif endpoint["kind"] == "transformers":
        code = json.loads(code_digest(PACKAGE / "endpoint/transformers_server.py"))
        identity = {"kind": "transformers", "model": model, "checkpoint": _weights(checkpoint), "code": code}
        command = [
            sys.executable,
            "-m",
            "prefdelta.endpoint.transformers_server",
            "--checkpoint",
            str(checkpoint),
            "--model",
            model,
        ]
        command += ["--port", str(port), "--threads", str(threads)]
        environment, patience = dict(os.environ), 300.0
    else:
        identity = _vllm_identity(endpoint, model, checkpoint)
        # By name, so that only jobs with such a server depend on that module.
        vllm = importlib.import_module("prefdelta.generate.backend_vllm")
        command = [str(vllm.vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += ["--served-model-name", model, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--tensor-parallel-size", str(max(1, endpoint["gpus"])), "--dtype", endpoint["dtype"]]
        command += ["--generation-config", "vllm"]  # not the sampling settings that the model's makers ship
        if not endpoint["gpus"]:
            # On a CPU, vLLM 0.30 ends at a request with a seed whose prompt takes more than one step.
            command += ["--no-enable-chunked-prefill"]
        if endpoint["max_model_len"]:
            command += ["--max-model-len", str(endpoint["max_model_len"])]
        command += endpoint["flags"]
        # The key is for those who share this machine and its loopback.
        environment = {**vllm.environment(threads), "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_API_KEY": key}
        patience = endpoint["patience"]
    with serving(command, f"{address}/health", log_file, patience, environment) as server:
        yield Connection(f"{address}/v1", key, identity, server, log_file)


def _vllm_identity(endpoint: Mapping[str, Any], model: str, checkpoint: Path) -> dict[str, Any]:
    """Name, weights and flags. vLLM's version and the number of GPUs change no more than rounding, so they are left out."""
    kept, fast = [], False
    for word in endpoint["flags"]:
        if word.startswith("--"):
            fast = word.partition("=")[0] in _SPEED
        if not fast:
            kept.append(word)
    settings = {"dtype": endpoint["dtype"], "max_model_len": endpoint["max_model_len"], "flags": kept}
    return {"kind": "vllm", "model": model, "checkpoint": _weights(checkpoint), **settings}


def _weights(checkpoint: Path) -> str:
    """A digest of what a checkpoint's manifest says, which holds those of its files."""
    manifest = read_manifest(checkpoint / "manifest.json")
    del manifest["versions"]
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def request_seed(*parts: object) -> int:
    """A seed for a request, from all that tells it from others, with room for a thousand successive ones within 32 bits.

    Servers draw from a generator that begins with the seed: requests with equal seeds would err alike.
    """
    text = json.dumps(parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % (2**31 - 1000)


def choices(response: Any) -> list[Choice]:
    """The choices of a chat completion. Raises ValueError where ``response`` is none."""
    try:
        usage = response.get("usage") or {}
        n_tokens = usage.get("completion_tokens") if len(response["choices"]) == 1 else None  # it is the sum over all choices
        made = [_choice(choice["message"], choice.get("finish_reason") or "stop", n_tokens) for choice in response["choices"]]
    except (AttributeError, KeyError, TypeError):
        made = []
    if not made:
        raise ValueError(f"not a chat completion: {str(response)[:300]}")
    return made


def _choice(message: dict[str, Any], finish_reason: str, n_tokens: int | None) -> Choice:
    content = message.get("content")
    # vLLM and OpenRouter say `reasoning`, DeepSeek and SGLang `reasoning_content`.
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
    declined = "refused by the model" if message.get("refusal") else None
    if finish_reason == "content_filter":
        declined = "stopped by a content filter"
    return Choice(content if isinstance(content, str) else None, reasoning, finish_reason, n_tokens, declined)


# What servers say, in the text of a 400 or 422, of keys that they do not know ...
_LACKS = {
    "response_format": re.compile(r"response_format|json_schema|structured.output|guided", re.I),
    "max_tokens": re.compile(r"max_completion_tokens"),
    "n": re.compile(r"""['"`]n['"`]|\bn\s*(>|<|=|!=|must|should|is not|has to)|(multiple|several) (choices|completions)""", re.I),
}
# ... and of a request whose content they decline.
_DECLINED = {
    "longer than the model's context": re.compile(r"context.length|context.window|too long|too many tokens", re.I),
    "refused by a content filter": re.compile(r"content.filter|content.management.policy|moderation", re.I),
}


def declined(status: int, text: str) -> str | None:
    """Why a server that refused a request declines its content; None where it refused for another reason."""
    found = [reason for reason, pattern in _DECLINED.items() if pattern.search(text)]
    return found[0] if status in (400, 413, 422) and found else None


def lacking(status: int, text: str, body: Body) -> str | None:
    """The key of ``body`` that a server which refused it does not know, if that is the reason and it can be done without."""
    found = [key for key, pattern in _LACKS.items() if pattern.search(text) and adapted(body, {key}) != [body]]
    return found[0] if status in (400, 404, 422, 501) and found else None


def learn(lacks: set[str], key: str, base_url: str) -> None:
    """Adds to ``lacks`` what the server does not know, and says so the first time."""
    if key not in lacks:
        log.warning("%s does not know `%s`: going on without it", base_url, key)
    lacks.add(key)


def adapted(body: Body, lacks: set[str]) -> list[Body]:
    """``body`` for a server without the keys ``lacks``: without a schema, or as single requests with successive seeds."""
    single = {key: value for key, value in body.items() if key not in lacks}
    if "max_tokens" in lacks and "max_tokens" in body:
        single["max_completion_tokens"] = body["max_tokens"]
    if "n" not in lacks or body.get("n", 1) == 1:
        return [{**single, "n": body["n"]} if "n" in body else single]
    return [{**single, "seed": body["seed"] + number} for number in range(body["n"])]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds for which a server asks to be left alone, by its header Retry-After (seconds or a date) or retry-after-ms."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


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
    where the server can't take so many (see `_Limit`). Keys that the server does not know (see `adapted`) are done without. A
    request that it declines for its content or length has choices that say so, and is not stored. Raises EndpointError where
    the endpoint refuses requests, stays out of reach, or was started by this job and ended.
    """

    async def run() -> None:
        # The openai package needs 3 to 4 times the processor time for a request: see benchmarks/judge.py.
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {connection.key}", "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(timeout),
            proxy=_proxy(connection.base_url),
        ) as session:
            await _Asker(connection, session, store, concurrency, retries).ask(n, body, answered)

    try:
        asyncio.run(run())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _proxy(base_url: str) -> str | None:
    """The proxy that the environment names for an address. aiohttp itself would look it up for each request, in a thread."""
    address = urllib.parse.urlsplit(base_url)
    return None if urllib.request.proxy_bypass(address.netloc) else urllib.request.getproxies().get(address.scheme)


class _Refused(Exception):
    """A response with an error status."""

    def __init__(self, status: int, content: str, headers: Mapping[str, str]) -> None:
        with contextlib.suppress(ValueError):
            content = str(json.loads(content))  # without JSON's backslashes, for `declined` and `lacking`
        super().__init__(f"{status}: {content}")
        self.status, self.headers = status, headers


class _Limit:
    """How many requests are under way: as many as the server takes, at most ``most``.

    The limit doubles each round trip up to the first overload. Then each overload lowers it to `_LESS`, and each round trip
    raises it by one (additive increase, multiplicative decrease); but the number that was too many last is tried again only after
    `_PATIENCE` round trips, so that the limit stays just below it and refusals are few.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.value = float(min(most, _FIRST))
        self.too_many = math.inf
        self._lowered = 0.0  # when
        self._under_way = 0
        self._places = int(self.value)  # free or taken
        self._free = asyncio.Semaphore(self._places)

    async def enter(self) -> int:
        """Waits until one more request may go out. Returns how many are under way with it."""
        await self._free.acquire()
        self._under_way += 1
        return self._under_way

    def leave(self) -> None:
        self._under_way -= 1
        if self._places > int(self.value):
            self._places -= 1
        else:
            self._free.release()

    def answered(self) -> None:
        """To be called at each answer, before `leave`."""
        if not self._free.locked():
            return  # it is not this limit that keeps requests from going out
        if self.too_many == math.inf:
            step = 1.0
        elif self.too_many - 1 <= self.value < self.too_many:
            step = 1 / (_PATIENCE * self.value)
        else:
            step = 1 / self.value
        self.value = min(self.most, self.value + step)
        while self._places < int(self.value):
            self._places += 1
            self._free.release()

    def overloaded(self, started: float, under_way: int) -> None:
        """To be called for a request that was too much. One from before the limit was last lowered (when it went out,
        ``under_way`` were more than are allowed now, or it was earlier) tells nothing new.
        """
        if started > self._lowered and under_way <= self.value:
            self.too_many = int(self.value)
            self.value, self._lowered = max(1.0, self.value * _LESS), time.monotonic()


class _Asker:
    """The requests of one call of `ask`, and what they have found out about the server."""

    def __init__(
        self, connection: Connection, session: aiohttp.ClientSession, store: Store, concurrency: int, retries: int
    ) -> None:
        self.connection, self.session, self.store = connection, session, store
        self.concurrency, self.retries = concurrency, retries
        self.lacks: set[str] = set()
        self.limit = _Limit(concurrency)
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
        stored = self.store.get(key)
        if stored is not None:
            await asyncio.sleep(0)  # a long row of stored answers must not keep others from working
            return choices(stored)
        parts = adapted(body, self.lacks)
        if parts != [body]:
            return [choice for part in parts for choice in await self._answer(part)]
        self.asking[key] = asyncio.Event()
        try:
            started = time.monotonic()
            text = json.dumps(body)
            response, made = await self._send(text.encode())
            if len(made) >= body.get("n", 1):
                self.store.put(key, text, response, time.monotonic() - started)
                return made
            missing = "n"  # it was passed over in silence
        except _Refused as error:
            lack = lacking(error.status, str(error), body)
            reason = declined(error.status, str(error))
            if reason:
                if not self.declined:
                    log.warning("%s declined a request: %s", self.connection.base_url, self._told(error))
                self.declined += 1
                return [Choice(declined=reason)] * body.get("n", 1)
            if not lack:
                raise EndpointError(f"{self.connection.base_url} failed: {self._told(error)}") from None
            missing = lack
        finally:
            self.asking.pop(key).set()
        learn(self.lacks, missing, self.connection.base_url)
        return await self._answer(body)

    async def _send(self, body: bytes) -> tuple[dict[str, Any], list[Choice]]:
        """The response to one request, and its choices. Raises _Refused, or EndpointError where all tries have failed."""
        tries, sent = 0, self.sent
        while True:
            under_way = await self.limit.enter()
            while (wait := self.resume - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            started = time.monotonic()
            error: aiohttp.ClientError | TimeoutError | ValueError | _Refused
            try:
                async with self.session.post(f"{self.connection.base_url}/chat/completions", data=body) as answer:
                    text = await answer.read()
                    if not answer.ok:
                        raise _Refused(answer.status, text.decode(errors="replace"), answer.headers)
                response: dict[str, Any] = json.loads(text)
                made = choices(response)
            except (aiohttp.ClientError, TimeoutError, ValueError, _Refused) as failure:
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
            status = error.status if isinstance(error, _Refused) else 0
            if status and status not in (408, 409, 429) and status < 500:
                raise error
            if status in (408, 429, 504) or isinstance(error, TimeoutError):
                self.limit.overloaded(started, under_way)
            pause = retry_after(error.headers) if isinstance(error, _Refused) else None
            if not (status == 429 and self.sent > sent):
                tries += 1
            sent = self.sent
            if tries > self.retries or (pause or 0) > _LONGEST_PAUSE:
                raise EndpointError(f"{self.connection.base_url} failed after {self.retries} retries: {self._told(error)}")
            if status == 429 and pause is not None:  # it says so to all
                self.resume = max(self.resume, time.monotonic() + pause)
            else:
                await asyncio.sleep(min(0.5 * 2**tries, 30) * random.uniform(0.75, 1) if pause is None else pause)

    def _told(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.session.timeout.total:g} s"
        return str(error).replace(self.connection.key, "***")
