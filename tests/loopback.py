"""Servers on the loopback with the OpenAI API, which answer as a test says, and processes by a mark in their arguments."""

import contextlib
import json
import threading
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from prefdelta.run.processes import free_port
from prefdelta.study.endpoints import UrlEndpoint

KEY = "TEST_JUDGE_KEY"


def url(address):
    """The endpoint at ``address``, which ends in a port."""
    return UrlEndpoint(kind="url", base_url=f"{address}/v1", api_key_env=KEY)


@contextlib.contextmanager
def serve(routes):
    """Serves ``routes`` and yields the address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def server(answer):
    """Chat completions are ``answer(number of the request, body)``; yields the endpoint and the bodies that came in."""
    bodies = []

    async def complete(request):
        bodies.append(await request.json())
        return answer(len(bodies), bodies[-1])

    with serve([Route("/v1/chat/completions", complete, methods=["POST"])]) as address:
        yield url(address), bodies


def content(*contents, finish_reason="stop", tokens=7, **message):
    """A chat completion with a choice for each of ``contents``."""
    choices = [
        {"index": index, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **message}}
        for index, content in enumerate(contents)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": tokens * len(choices), "total_tokens": 5 + tokens * len(choices)}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


def completion(*contents, **options):
    return JSONResponse(content(*contents, **options))


def refusal(status, message="not now", **headers):
    headers = headers or {"retry-after-ms": "10"}
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


def running(mark):
    """The processes that have ``mark`` as an argument, without their wardens."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if mark.encode() in words and not any(word.endswith(b"warden.py") for word in words):
                found.append(file.parent.name)
    return found


def eventually(holds, patience=60):
    """Waits until ``holds()``."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def entries(store):
    """All entries of the store in the folder ``store``."""
    return [json.loads(line) for file in sorted(Path(store).rglob("*.jsonl")) for line in file.read_text().splitlines()]
