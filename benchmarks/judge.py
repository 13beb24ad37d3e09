"""The judge's client against `wrk`: requests per second of the same payload and concurrency at the same endpoint.

The endpoint is a process with an asyncio protocol that answers each request with one fixed completion after a given time. A
request is a judge's (rubric, problem, trace of 3,000 characters, schema, n=5). ``judge`` has the goal: 128 at once and a service
time of 200 ms, which is faster than language models answer. The others, with 64 at once and less time, show where the client's
own processor time becomes the limit. `wrk` sends one fixed body over and over and reads nothing of the answers; the client writes
each request, looks for it in the store, parses the answer, reads five times five ratings and stores it. All three processes share
the machine. Without `wrk` on the PATH (Debian: the package `wrk`) an asyncio protocol takes its place, which ``details`` says.

``details`` also have the processor time a request, that of the openai package alone, with httpx and with aiohttp (the client uses
aiohttp without it), and the growth of the peak memory with the number of requests, of the asking alone and of a whole job with
its table of 25 rows a request. Not compared: TLS, slow networks, a real model.
"""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import openai
import polars as pl

from prefdelta.endpoint import answers, client, servers, store
from prefdelta.endpoint.serving import serving
from prefdelta.judge import rubric
from prefdelta.judge.ratings import rate_traces
from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.run.processes import free_port
from prefdelta.study.dimensions import DIMENSIONS, PAPER
from prefdelta.study.endpoints import UrlEndpoint
from prefdelta.study.judges import Judge
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.tables.io import write_table
from prefdelta.tables.stages import Traces

RUNS, REQUESTS = 3, 10_000
# Name: service time in seconds, requests at once, goal.
ROWS = {
    "judge": (0.2, 128, ">= 0.9"),
    "judge_50ms": (0.05, 64, "none"),
    "judge_10ms": (0.01, 64, "none"),
    "judge_0ms": (0.0, 64, "none"),
}
LEVELS = json.dumps(dict.fromkeys(DIMENSIONS, 4))
MESSAGE = {"role": "assistant", "content": LEVELS}
CHOICES = [{"index": index, "finish_reason": "stop", "message": MESSAGE} for index in range(5)]
ANSWER = json.dumps({"object": "chat.completion", "choices": CHOICES, "usage": {"prompt_tokens": 1000, "completion_tokens": 200}})
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
TRACE = ("First, 3 * 4 = 12, so the sum is 12 + 5 = 17.\n" * 100)[:3000]


def body(number: int) -> dict[str, Any]:
    """A judge's request; ``number`` makes it differ from others."""
    request = {
        "model": "m",
        "messages": rubric.messages(PAPER, DIMENSIONS, f"Problem {number}", TRACE),
        "temperature": 0.6,
        "max_tokens": 256,
    }
    return {**request, "seed": number, "n": 5, "response_format": rubric.response_format(PAPER, DIMENSIONS)}


class Server(asyncio.Protocol):
    """Answers every request after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.got = seconds, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            end += 4 + int(self.got[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.got) < end:
                break
            self.got = self.got[end:]
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, (HEAD + ANSWER).encode())


class Plain(asyncio.Protocol):
    """What takes the place of `wrk`: one connection that sends a request as soon as the last one is answered."""

    count = 0

    def __init__(self, request: bytes) -> None:
        self.request, self.got = request, 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got == len(HEAD) + len(ANSWER):
            self.got = 0
            Plain.count += 1
            self.transport.write(self.request)


async def serve(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Server(seconds), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def plain(port: int, seconds: float, concurrency: int) -> None:
    content = json.dumps(body(0))
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
    for _ in range(concurrency):
        await asyncio.get_running_loop().create_connection(lambda: Plain(request), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    print(json.dumps({"rate": Plain.count / seconds}))


async def by_openai(port: int, n: int, concurrency: int, transport: str) -> None:
    """``n`` requests through the openai package, whose answers are only parsed as JSON."""
    session = openai.DefaultAioHttpClient() if transport == "aiohttp" else openai.DefaultAsyncHttpxClient()
    numbers = iter(range(n))
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", http_client=session) as asked:

        async def work() -> None:
            for number in numbers:
                json.loads(await asked.post("/chat/completions", cast_to=str, body=body(number)))

        await asyncio.gather(*(work() for _ in range(concurrency)))


def asking(port: int, n: int, concurrency: int) -> None:
    """``n`` requests through the client."""
    connection = servers.Connection(f"http://127.0.0.1:{port}/v1", "x", {})

    def answered(number: int, choices: list[answers.Choice]) -> None:
        for choice in choices:
            assert rubric.parse(PAPER, DIMENSIONS, choice, "")[1] is None

    client.ask(
        connection, n, body, answered, store=store.Store({}), run=RequestsRun(concurrency=concurrency, retries=0, timeout=60)
    )


def rating(port: int, n: int, concurrency: int) -> None:
    """A whole job of ``n`` requests: 100 traces with so many repeats."""
    names = [f"t{number}" for number in range(100)]
    columns = {"trace_id": names, "prompt_id": names, "generator": "g", "sample": 0, "prompt": names, "text": TRACE}
    columns |= {"reasoning": "", "response": TRACE, "answer": "17", "correct": True, "n_tokens": 1000, "finish_reason": "stop"}
    traces = Path(os.environ["PREFDELTA_STORE"], "traces.parquet")
    frame = pl.DataFrame(columns, schema_overrides={"sample": pl.Int64, "n_tokens": pl.Int64})
    write_table(frame.select(list(Traces.to_schema().columns)), Traces, traces)
    os.environ["KEY"] = "x"
    reached = UrlEndpoint(kind="url", base_url=f"http://127.0.0.1:{port}/v1", api_key_env="KEY")
    # More repeats than a study may have, so without the check of their number.
    judge = Judge(model="m", endpoint=reached, choices_per_request=5).model_copy(update={"repeats": n // 20})
    requests = RequestsRun(concurrency=concurrency, retries=0, timeout=60)
    rate_traces(
        traces,
        None,
        None,
        traces.with_name("ratings.parquet"),
        settings=RatingsSettings(judge="j", settings=judge),
        run=RatingsRun(requests=requests, model=ModelRun()),
        threads=1,
        log_file=Path("log"),
    )


def measured(task: str, port: int, n: int, concurrency: int, *words: str) -> dict[str, float]:
    """A task of `main` in a process of its own: requests per second, and what it needed of processor and memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, task, str(port), str(n), str(concurrency), *words]
        done = subprocess.run(
            command, env={**os.environ, "PREFDELTA_STORE": folder}, stdout=subprocess.PIPE, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def wrk(port: int, concurrency: int) -> float:
    """Requests per second of `wrk`, or of what takes its place."""
    if not shutil.which("wrk"):
        return measured("plain", port, 5, concurrency)["rate"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = {json.dumps(json.dumps(body(0)))}\n')
        script.flush()
        command = ["wrk", "-t1", f"-c{concurrency}", "-d5s", "-s", script.name, f"http://127.0.0.1:{port}/v1/chat/completions"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told
    return float(told.rpartition("Requests/sec:")[2].split()[0])


def compare() -> None:
    tool = "wrk" if shutil.which("wrk") else "an asyncio protocol (wrk is not installed)"
    for name, (seconds, at_once, goal) in ROWS.items():
        port = free_port()
        with serving([sys.executable, __file__, "serve", str(port), str(seconds)], f"http://127.0.0.1:{port}/", os.devnull):
            runs: list[dict[str, float]] = []

            def ours(port: int = port, at_once: int = at_once, runs: list[dict[str, float]] = runs) -> float:
                runs.append(measured("ask", port, REQUESTS, at_once))
                return runs[-1]["rate"]

            pairs = measure.alternate(ours, lambda port=port, at_once=at_once: wrk(port, at_once), RUNS)
            details: dict[str, Any] = {"against": tool, "service_ms": 1000 * seconds, "concurrency": at_once}
            details |= {"client_per_s": [round(us) for us, _ in pairs], "other_per_s": [round(them) for _, them in pairs]}
            details |= {
                "client_cpu_us": [run["cpu_us"] for run in runs],
                "client_waited_for_cpu": [run["waited"] for run in runs],
            }
            if not seconds:
                for transport in ("httpx", "aiohttp"):
                    details[f"openai_{transport}_cpu_us"] = measured("openai", port, 2000, at_once, transport)["cpu_us"]
                for task in ("ask", "rate"):
                    many, few = (measured(task, port, n, at_once)["peak_mib"] for n in (40_000, 2_000))
                    details[f"{task}_growth_mib_2000_to_40000_requests"] = round(many - few, 1)
        what = f"requests/s of the client / of {tool}, {1000 * seconds:g} ms service time, {at_once} at once"
        command = "python benchmarks/judge.py"
        measure.record(name, command, [us / them for us, them in pairs], goal, what, ["aiohttp", "openai"], **details)


def waiting() -> float:
    """Seconds for which this process was ready to run while others had the processor (Linux)."""
    return int(Path("/proc/self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9


def main(task: str = "", *words: str) -> None:
    if not task:
        compare()
    elif task == "serve":
        asyncio.run(serve(int(words[0]), float(words[1])))
    elif task == "plain":
        asyncio.run(plain(int(words[0]), float(words[1]), int(words[2])))
    else:
        port, n, concurrency = map(int, words[:3])
        started, cpu, waited = time.perf_counter(), time.process_time(), waiting()
        if task == "openai":
            asyncio.run(by_openai(port, n, concurrency, words[3]))
        else:
            {"ask": asking, "rate": rating}[task](port, n, concurrency)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        used = {"rate": n / seconds, "cpu_us": round((time.process_time() - cpu) / n * 1e6)}
        print(json.dumps({**used, "waited": round((waiting() - waited) / seconds, 2), "peak_mib": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
