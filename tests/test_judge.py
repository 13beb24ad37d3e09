"""The judge over a real server on the loopback, the rubric's answers, and servers that misbehave."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import build
import polars as pl
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from prefdelta.endpoint import EndpointError, free_port, serving
from prefdelta.judge import JudgeError, rate_traces
from prefdelta.microworld.oracle import grade
from prefdelta.microworld.problems import parse as parse_problem
from prefdelta.rubric import DIMENSIONS, messages, parse
from prefdelta.tables import Ratings, Traces, read_table, write_table

GOOD = dict.fromkeys(DIMENSIONS, 4)
TRACES = build.traces(n_prompts=6, samples=2, faults=dict.fromkeys(DIMENSIONS, 0.4))


def rate(folder, endpoint, traces=TRACES, **changes):
    settings = {"judge": "oracle", "model": "oracle", "repeats": 4, "choices_per_request": 2, "temperature": 0.6}
    settings |= {"max_tokens": 64, "concurrency": 4, "retries": 3, "timeout": 10, "seed": 0}
    folder.mkdir(exist_ok=True)
    write_table(traces, Traces, folder / "traces.parquet")
    output = folder / "ratings.parquet"
    rate_traces(folder / "traces.parquet", output, folder / "log", endpoint=endpoint, **(settings | changes))
    return read_table(output, Ratings)


def microworld(noise=0.0, unparsable=0.0):
    return {"kind": "microworld", "noise": noise, "unparsable": unparsable}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Ratings by a judge with noise and unreadable answers."""
    return rate(tmp_path_factory.mktemp("noisy"), microworld(0.8, 0.3))


def test_every_trace_has_every_repeat_of_every_dimension(noisy):
    keys = {(trace, name, repeat) for trace in TRACES["trace_id"] for name in DIMENSIONS for repeat in range(4)}
    assert set(noisy.select("trace_id", "dimension", "repeat").iter_rows()) == keys
    assert len(noisy) == len(keys)
    assert noisy["judge"].unique().to_list() == ["oracle"]


def test_ratings_do_not_depend_on_the_run_or_its_concurrency(noisy, tmp_path):
    assert rate(tmp_path, microworld(0.8, 0.3), concurrency=1).equals(noisy)


def test_another_seed_is_another_judgement_and_so_is_another_repeat(noisy, tmp_path):
    assert not rate(tmp_path, microworld(0.8, 0.3), seed=1)["rating"].equals(noisy["rating"])
    assert noisy.group_by("trace_id", "dimension").agg(pl.col("rating").n_unique())["rating"].max() > 1


def test_unreadable_ratings_are_missing_with_a_reason_and_never_a_number(noisy):
    missing = noisy.filter(pl.col("rating").is_null())
    assert 0.1 < len(missing) / len(noisy) < 0.5
    assert missing["reason"].is_in(["not JSON", "empty answer"]).all()
    assert noisy["rating"].drop_nulls().is_between(1, 5).all()
    assert noisy.filter(pl.col("rating").is_not_null())["reason"].null_count() == len(noisy) - len(missing)


def test_without_noise_ratings_are_the_rounded_oracle_scores_and_no_server_is_left(tmp_path):
    noise = 1e-9 + os.getpid() * 1e-16  # a mark on the command line by which to find the server
    ratings = rate(tmp_path, microworld(noise))
    for prompt, text, trace_id in TRACES.select("prompt", "text", "trace_id").iter_rows():
        scores = grade(parse_problem(prompt), text)
        for dimension, rating in ratings.filter(trace_id=trace_id).select("dimension", "rating").iter_rows():
            assert abs(rating - scores[dimension]) <= 0.5 + 1e-6
    assert running(str(noise)) == []


def running(mark):
    """The processes that have ``mark`` as an argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes().split(b"\0"):
                found.append(file.parent.name)
    return found


SERVE = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"


@pytest.mark.parametrize("broken", [False, True])
def test_a_server_runs_for_as_long_as_its_block_also_one_that_fails(broken, tmp_path):
    mark, port = f"mark-{os.getpid()}-{broken}", free_port()
    with (
        contextlib.suppress(ZeroDivisionError),
        serving([sys.executable, "-c", SERVE, str(port), mark], f"http://127.0.0.1:{port}/", tmp_path / "log"),
    ):
        assert len(running(mark)) == 1
        if broken:
            raise ZeroDivisionError
    assert running(mark) == []


@pytest.mark.parametrize("stubborn", [False, True], ids=["obedient", "deaf to SIGTERM"])
def test_the_children_of_a_server_are_ended_with_it(stubborn, tmp_path):
    mark, port, ready = f"mark-{os.getpid()}-child-{stubborn}", free_port(), tmp_path / "ready"
    child = "import pathlib, signal, sys, time\n" + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * stubborn
    child += f"pathlib.Path({str(ready)!r}).touch()\ntime.sleep(20)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}, {mark!r}]); {SERVE}"
    with serving([sys.executable, "-c", code, str(port)], f"http://127.0.0.1:{port}/", tmp_path / "log"):
        eventually(ready.exists)
        (pid,) = running(mark)
    try:
        eventually(lambda: not running(mark))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_a_job_that_is_killed(how, tmp_path):
    mark, port, ready = f"mark-{os.getpid()}-{how}", free_port(), tmp_path / "ready"
    code = f"""
import pathlib, time
from prefdelta.endpoint import serving
with serving({[sys.executable, "-c", SERVE, str(port), mark]!r}, "http://127.0.0.1:{port}/", "log"):
    pathlib.Path("ready").touch()
    time.sleep(20)
"""
    job = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    eventually(ready.exists)
    (pid,) = running(mark)
    try:
        job.send_signal(how)
        job.wait(timeout=10)
        eventually(lambda: not running(mark))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def eventually(holds, patience=5):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_dies_at_once_is_an_error_that_names_its_log(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no GPU here')"]
    with (
        pytest.raises(EndpointError, match=f"exit code 1 .*{tmp_path}/log"),
        serving(command, "http://127.0.0.1:9/", tmp_path / "log"),
    ):
        pytest.fail("it never answered")
    assert "no GPU here" in (tmp_path / "log").read_text()


def test_a_server_that_never_answers_is_ended_and_an_error_that_names_its_log(tmp_path):
    mark = f"mark-{os.getpid()}-mute"
    command = [sys.executable, "-c", "import time; time.sleep(60)", mark]
    with (
        pytest.raises(EndpointError, match=f"did not answer .*{tmp_path}/log"),
        serving(command, f"http://127.0.0.1:{free_port()}/", tmp_path / "log", patience=0.5),
    ):
        pytest.fail("it never answered")
    assert running(mark) == []


def test_a_jobs_log_keeps_what_the_server_wrote_to_it(tmp_path):
    port = free_port()
    command = [sys.executable, "-c", f"import sys; print('server speaking', flush=True); {SERVE}", str(port)]
    code = f"""
from prefdelta.endpoint import serving
from prefdelta.job import job, log
with job("log"):
    log.info("first")
    with serving({command!r}, "http://127.0.0.1:{port}/", "log"):
        log.info("second, long enough to write over what the server said")
    log.info("third")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    text = (tmp_path / "log").read_text()
    for word in ("first", "server speaking", "second", "third"):
        assert word in text


@contextlib.contextmanager
def server(answer):
    """A judge on the loopback whose completions are ``answer(number of the request)``; yields its endpoint and the bodies."""
    bodies = []

    async def complete(request):
        bodies.append(await request.json())
        return answer(len(bodies))

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    port = free_port()
    judge = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=judge.run)
    thread.start()
    try:
        while not judge.started:
            time.sleep(0.01)
        yield {"kind": "url", "base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": "TEST_JUDGE_KEY"}, bodies
    finally:
        judge.should_exit = True
        thread.join()


def completion(*contents):
    choices = [
        {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        for index, content in enumerate(contents)
    ]
    return JSONResponse({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices})


def refusal(status):
    return JSONResponse({"error": {"message": "not now"}}, status_code=status, headers={"retry-after-ms": "10"})


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", "secret")


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_for_a_while_is_asked_again(status, tmp_path):
    with server(lambda n: refusal(status) if n <= 2 else completion(*[json.dumps(GOOD)] * 2)) as (endpoint, bodies):
        ratings = rate(tmp_path, endpoint, TRACES.head(1))
    assert ratings["rating"].to_list() == [4] * 20
    assert len(bodies) == 2 + 2


@pytest.mark.parametrize("status, n_requests", [(400, 1), (401, 1), (429, 3), (500, 3)])
def test_a_server_that_refuses_is_an_error_and_no_table(status, n_requests, tmp_path):
    with server(lambda n: refusal(status)) as (endpoint, bodies), pytest.raises(JudgeError) as error:
        rate(tmp_path, endpoint, TRACES.head(1), concurrency=1, retries=2)
    assert len(bodies) == n_requests
    for word in ("oracle", endpoint["base_url"], str(status)):
        assert word in str(error.value)
    assert not (tmp_path / "ratings.parquet").exists()


def test_a_server_out_of_reach_is_an_error(tmp_path):
    endpoint = {"kind": "url", "base_url": f"http://127.0.0.1:{free_port()}/v1", "api_key_env": "TEST_JUDGE_KEY"}
    with pytest.raises(JudgeError, match=endpoint["base_url"]):
        rate(tmp_path, endpoint, concurrency=4, retries=0)


def test_a_request_asks_for_what_the_judge_is_configured_for(tmp_path):
    with server(lambda n: completion(*[json.dumps(GOOD)] * 2)) as (endpoint, bodies):
        rate(tmp_path, endpoint, TRACES.head(1), temperature=0.3, model="m")
    prompt, text = TRACES.row(0, named=True)["prompt"], TRACES.row(0, named=True)["text"]
    for body in bodies:
        assert (body["n"], body["temperature"], body["max_tokens"], body["model"]) == (2, 0.3, 64, "m")
        assert body["messages"] == messages(prompt, text)
        assert body["response_format"]["json_schema"]["schema"]["required"] == list(DIMENSIONS)
    assert len({body["seed"] for body in bodies}) == len(bodies) == 2


def test_choices_that_a_server_does_not_give_are_missing(tmp_path):
    with server(lambda n: completion(json.dumps(GOOD))) as (endpoint, _):
        ratings = rate(tmp_path, endpoint, TRACES.head(1))
    by_repeat = {repeat: part for (repeat,), part in ratings.partition_by("repeat", as_dict=True).items()}
    assert [by_repeat[repeat]["rating"].null_count() for repeat in range(4)] == [0, 5, 0, 5]
    assert by_repeat[1]["reason"].unique().to_list() == ["empty answer"]


def test_a_judge_without_its_key_is_an_error_that_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    endpoint = {"kind": "url", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEST_JUDGE_KEY"}
    with pytest.raises(JudgeError, match=r"\$TEST_JUDGE_KEY"):
        rate(tmp_path, endpoint)


def test_the_key_is_sent_but_never_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="prefdelta")
    with server(lambda n: completion(*[json.dumps(GOOD)] * 2)) as (endpoint, _):
        rate(tmp_path, endpoint, TRACES.head(1))
    assert "secret" not in caplog.text


def test_a_good_answer_is_read():
    assert parse(json.dumps(GOOD)) == (GOOD, None)
    assert parse(json.dumps(GOOD | {"comment": "well done"}, indent=1)) == (GOOD, None)


@pytest.mark.parametrize("level", [True, 3.5, 4.0, "4", None, 0, 6, -1, [4], {}, 10**400])
def test_what_is_no_whole_level_from_one_to_five_is_missing(level):
    ratings, reason = parse(json.dumps(GOOD | {"strategy_coherence": level}))
    assert ratings == GOOD | {"strategy_coherence": None}
    assert reason == "no level from 1 to 5"


def test_a_dimension_that_is_not_answered_is_missing():
    ratings, reason = parse('{"factuality": 2}')
    assert ratings == dict.fromkeys(DIMENSIONS) | {"factuality": 2}
    assert reason == "no level from 1 to 5"


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "empty answer"),
        ("", "empty answer"),
        ("Great trace!", "not JSON"),
        ("[4, 4, 4, 4, 4]", "not a JSON object"),
        ("4", "not a JSON object"),
        ("null", "not a JSON object"),
        *((json.dumps(GOOD)[:n], "not JSON") for n in (1, 20, len(json.dumps(GOOD)) - 1)),
        pytest.param("[" * 2000, "not JSON", id="brackets without end"),
        pytest.param('{"factuality": ' + "9" * 5000 + "}", "not JSON", id="digits without end"),
    ],
)
def test_an_answer_that_cannot_be_read_is_missing_in_every_dimension(content, reason):
    assert parse(content) == (dict.fromkeys(DIMENSIONS), reason)


@given(st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_text_is_read_without_error_and_never_as_a_level(content):
    ratings, reason = parse(content)
    assert ratings == dict.fromkeys(DIMENSIONS)
    assert reason
