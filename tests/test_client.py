"""Asking an endpoint many things at once: what is sent, what is tried again, and what a server's limits do."""

import asyncio
import logging
import random
import threading
import time

import pytest
from loopback import completion, content, entries, refusal, serve, server, url
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from prefdelta.endpoint.answers import choices
from prefdelta.endpoint.client import ask
from prefdelta.endpoint.limit import Limit
from prefdelta.endpoint.refusals import adapted
from prefdelta.endpoint.servers import Connection, connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.store import Store
from prefdelta.study.run import ModelRun, RequestsRun

pytestmark = pytest.mark.usefixtures("asking")


def body(number):
    return {"model": "m", "messages": [{"role": "user", "content": str(number)}], "n": 2, "seed": 10 * number, "max_tokens": 5}


def asked(endpoint, n, body=body, **changes):
    """The answers to ``body(0)`` to ``body(n - 1)``, by number."""
    found = {}
    run = RequestsRun(**{"concurrency": 8, "retries": 3, "timeout": 10} | changes)
    with connected(endpoint, Served("m", None, "auto", ModelRun()), threads=1, log_file="log") as connection:
        ask(connection, n, body, found.__setitem__, store=Store(connection.identity), run=run)
    assert sorted(found) == list(range(n))
    return found


def echo(n, body):
    """Each choice is the question."""
    return completion(*[body["messages"][0]["content"]] * body.get("n", 1))


def test_each_question_gets_its_own_answer(tmp_path):
    with server(echo) as (endpoint, bodies):
        found = asked(endpoint, 50)
    assert [[choice.content for choice in found[number]] for number in range(50)] == [[str(n)] * 2 for n in range(50)]
    assert sorted(bodies, key=lambda body: body["seed"]) == [body(number) for number in range(50)]
    assert len(entries(tmp_path / "store")) == 50


def test_the_same_question_is_asked_once():
    with server(echo) as (endpoint, bodies):
        found = asked(endpoint, 20, lambda number: body(number % 2))
    assert len(bodies) == 2
    assert [found[number][0].content for number in range(20)] == ["0", "1"] * 10


def test_no_more_requests_are_under_way_than_allowed():
    under_way, most = 0, 0

    class Slow(JSONResponse):
        async def __call__(self, scope, receive, send):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            await super().__call__(scope, receive, send)

    with server(lambda n, body: Slow(content("a", "b"))) as (endpoint, _):
        asked(endpoint, 40, concurrency=4)
    assert most == 4


@pytest.mark.parametrize("failure", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again(failure):
    with server(lambda n, body: refusal(failure) if n <= 3 else echo(n, body)) as (endpoint, bodies):
        asked(endpoint, 1)
    assert len(bodies) == 4


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("<html>gateway</html>"),
        JSONResponse({"error": {"message": "upstream"}}),
        JSONResponse({"choices": None}),
        JSONResponse({"choices": []}),
        JSONResponse([]),
    ],
)
def test_what_is_no_completion_is_tried_again_and_never_stored(answer, tmp_path):
    with server(lambda n, body: answer if n == 1 else echo(n, body)) as (endpoint, bodies):
        assert asked(endpoint, 1)[0][0].content == "0"
        assert len(bodies) == 2
    failed = pytest.raises(EndpointError, match=r"not a chat completion|Expecting value|upstream")
    with server(lambda n, body: answer) as (broken, _), failed:
        asked(broken, 1, retries=0)
    assert len(entries(tmp_path / "store")) == 1


def test_an_answer_is_stored_as_the_server_wrote_it(tmp_path):
    answer = content("a", "b", reasoning_content="because", own={"deep": [1, None]}) | {"provider": "x"}
    with server(lambda n, body: JSONResponse(answer)) as (endpoint, _):
        assert asked(endpoint, 1)[0][1].reasoning == "because"
    assert [entry["response"] for entry in entries(tmp_path / "store")] == [answer]


def test_a_server_learns_nothing_of_the_machine():
    seen = []

    async def complete(request):
        seen.append(dict(request.headers))
        return completion("a", "b")

    with serve([Route("/v1/chat/completions", complete, methods=["POST"])]) as address:
        asked(url(address), 1)
    assert seen[0]["authorization"] == "Bearer secret"
    assert not {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"} & seen[0].keys()


def test_a_refusal_is_never_stored(tmp_path):
    with server(lambda n, body: refusal(400)) as (endpoint, bodies):
        for _ in range(2):
            with pytest.raises(EndpointError, match=f"{endpoint.base_url} .*not now"):
                asked(endpoint, 1)
    assert len(bodies) == 4  # as it was, and with one choice, in case it makes no more
    assert not list((tmp_path / "store").rglob("*.jsonl"))


@pytest.mark.parametrize("headers", [{"retry-after": "1"}, {"retry-after-ms": "900"}])
def test_nothing_is_sent_before_the_time_that_the_server_names(headers):
    times = []

    def answer(n, body):
        times.append(time.monotonic())
        return refusal(429, **headers) if n == 1 else echo(n, body)

    with server(answer) as (endpoint, _):
        asked(endpoint, 3, concurrency=1)
    assert times[1] - times[0] >= 0.9


def test_who_is_told_to_wait_for_hours_gives_up():
    with server(lambda n, body: refusal(429, **{"retry-after": "7200"})) as (endpoint, bodies), pytest.raises(EndpointError):
        asked(endpoint, 1)
    assert len(bodies) == 1


def test_a_storm_of_refusals_is_sat_out_with_fewer_requests():
    under_way, refused, lock, rng = 0, 0, threading.Lock(), random.Random(0)

    class Limited(JSONResponse):
        """Two requests at a time, and no more."""

        async def __call__(self, scope, receive, send):
            nonlocal under_way, refused
            with lock:
                under_way += 1
                busy = under_way > 2
                refused += busy
            await asyncio.sleep(0.002 if busy else 0.01 + 0.01 * rng.random())
            with lock:
                under_way -= 1
            await (refusal(429) if busy else JSONResponse(content("a", "b")))(scope, receive, send)

    with server(lambda n, body: Limited({})) as (endpoint, bodies):
        asked(endpoint, 100, concurrency=32, retries=1)
    assert refused == len(bodies) - 100
    assert refused < 150


def test_many_requests_go_out_where_the_server_takes_them():
    under_way, most = 0, 0

    class Slow(JSONResponse):
        async def __call__(self, scope, receive, send):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.2)
            under_way -= 1
            await super().__call__(scope, receive, send)

    with server(lambda n, body: Slow(content("a", "b"))) as (endpoint, bodies):
        asked(endpoint, 300, concurrency=40)
    assert most == 40
    assert len(bodies) == 300


@pytest.mark.parametrize("overloaded", ["429", "hangs"])
def test_the_servers_limit_is_found_and_kept_with_few_refusals(overloaded):
    under_way, refused, seen, n = 0, 0, [], 300

    class Limited(JSONResponse):
        """Six requests at a time. One more is refused, or gets no answer in time."""

        async def __call__(self, scope, receive, send):
            nonlocal under_way, refused
            if under_way >= 6:
                refused += 1
                await asyncio.sleep(0.4 if overloaded == "hangs" else 0)
                await refusal(429, **{"x": "no Retry-After"})(scope, receive, send)
                return
            under_way += 1
            seen.append(under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            await super().__call__(scope, receive, send)

    with server(lambda n, body: Limited(content("a", "b"))) as (endpoint, _):
        asked(endpoint, n, concurrency=64, retries=8, timeout=0.3)
    assert 0 < refused < (0.2 if overloaded == "429" else 0.5) * n  # what hangs is noticed late
    later = seen[len(seen) // 2 :]
    assert sum(later) / len(later) > 2.5


def test_what_a_limit_hears_of_requests_from_before_it_fell_is_no_news():
    async def run():
        limit = Limit(100)
        places = [await limit.enter() for _ in range(8)]
        sent = time.monotonic()
        limit.overloaded(sent, places[-1])
        assert limit.value == pytest.approx(5.6)
        for under_way in places:
            limit.overloaded(sent, under_way)
        limit.overloaded(time.monotonic(), 8)  # went out afterwards, but with more under way than the limit
        assert limit.value == pytest.approx(5.6)
        limit.overloaded(time.monotonic(), 5)
        assert limit.value == pytest.approx(3.92)
        for _ in range(100):
            limit.overloaded(time.monotonic(), 1)
        assert limit.value == 1

    asyncio.run(run())


@pytest.mark.parametrize("exempt, n_seen", [("", 1), ("127.0.0.1", 0)])
def test_the_environments_proxy_is_used_unless_the_address_is_exempt(exempt, n_seen, monkeypatch):
    with server(echo) as (endpoint, bodies), server(lambda n, body: refusal(400)) as (proxy, _):
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", exempt)
        if exempt:
            asked(endpoint, 1)
        else:
            with pytest.raises(EndpointError):
                asked(endpoint, 1)
    assert len(bodies) == 1 - n_seen


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "key, message",
    [
        ("response_format", "response_format type json_schema is not supported"),
        ("response_format", "Structured outputs are not available for this model"),
        ("n", "n must be 1"),
        ("n", "Unsupported value: 'n' does not support 2 with this model"),
        ("max_tokens", "Use 'max_completion_tokens' instead of 'max_tokens'."),
    ],
)
def test_what_a_server_does_not_know_is_done_without(status, key, message, caplog):
    def answer(n, body):
        return refusal(status, message) if body.get(key, 1) != 1 else echo(n, body)

    def question(number):
        return {**body(number), "response_format": {"type": "json_schema"}}

    caplog.set_level(logging.WARNING, logger="prefdelta")
    with server(answer) as (endpoint, bodies):
        found = asked(endpoint, 30, question, concurrency=2)
        n_first = len(bodies)
        assert asked(endpoint, 30, question, concurrency=1) == found
    assert [len(found[number]) for number in range(30)] == [2] * 30
    n_needed = 60 if key == "n" else 30
    assert n_needed < n_first <= n_needed + 2
    assert len(bodies) == n_first
    assert caplog.text.count(f"does not know `{key}`") == 1
    if key == "n":
        assert {body["seed"] for body in bodies if "n" not in body} == {10 * n + k for n in range(30) for k in range(2)}
    if key == "max_tokens":
        assert {body.get("max_completion_tokens") for body in bodies if "max_tokens" not in body} == {5}


def test_a_server_that_lacks_everything_gets_plain_single_requests():
    lacks = {"response_format": "no json_schema here", "n": "n should be 1", "max_tokens": "use max_completion_tokens"}

    def answer(n, body):
        refused = [message for key, message in lacks.items() if key in body]
        return refusal(400, refused[0]) if refused else echo(n, body)

    with server(answer) as (endpoint, _):
        found = asked(endpoint, 3, lambda number: {**body(number), "response_format": {}})
    assert [choice.content for choice in found[2]] == ["2", "2"]


def test_a_server_that_refuses_what_it_was_spared_is_an_error():
    failed = pytest.raises(EndpointError, match="n must be 1")
    with server(lambda n, body: refusal(400, "n must be 1")) as (endpoint, bodies), failed:
        asked(endpoint, 1)
    assert len(bodies) == 3


TOO_LONG = ["This model's maximum context length is 10 tokens", "context_length_exceeded", "Prompt is too long"]


@pytest.mark.parametrize("message", [*TOO_LONG, "content_filter"])
def test_a_question_that_is_declined_for_its_content_leaves_the_others(message):
    with server(lambda n, body: refusal(400, message) if body["seed"] == 10 else echo(n, body)) as (endpoint, bodies):
        found = asked(endpoint, 3)
    assert [choice.declined is None for number in range(3) for choice in found[number]] == [True] * 2 + [False] * 2 + [True] * 2
    assert len(bodies) == 3


@pytest.mark.parametrize("told", [{"finish_reason": None}, {}], ids=["null", "none"])
def test_an_answer_without_a_finish_reason_is_complete(told):
    """Some servers tell none at all; one that was cut is told as such by every server that tells anything."""
    (choice,) = choices({"choices": [{"index": 0, "message": {"content": "4"}, **told}]})
    assert (choice.content, choice.finish_reason, choice.declined) == ("4", None, None)


def test_reasoning_finish_reason_and_tokens_are_read():
    for key in ("reasoning", "reasoning_content"):
        (choice,) = choices(content("4", finish_reason="length", **{key: "2+2"}))
        assert (choice.content, choice.reasoning, choice.finish_reason, choice.n_tokens) == ("4", "2+2", "length", 7)
    assert [choice.n_tokens for choice in choices(content("4", "5"))] == [None, None]  # of both only the sum is known


def test_adapting_does_not_change_what_needs_no_change():
    assert adapted(body(1), set()) == [body(1)]
    assert adapted({**body(1), "n": 1}, {"n"}) == [{**body(1), "n": 1}]


def test_progress_is_told_with_rates_and_time_left(caplog, monkeypatch):
    monkeypatch.setattr("prefdelta.endpoint.client.PROGRESS", 0.1)
    caplog.set_level(logging.INFO, logger="prefdelta")

    def slowly(n, body):
        time.sleep(0.05)
        return echo(n, body)

    with server(slowly) as (endpoint, _):
        asked(endpoint, 30, concurrency=1)
    assert "of 30 answers" in caplog.text
    assert "about" in caplog.text
    assert "30 answers, 30 requests made for them, 0 declined; tokens: 150 read, 420 written" in caplog.text


def test_a_server_that_never_answers_is_an_error_that_says_for_how_long_it_was_waited():
    def never(n, body):
        time.sleep(0.4)
        return echo(n, body)

    with server(never) as (endpoint, _), pytest.raises(EndpointError, match=r"0 retries: no answer within 0\.2 s"):
        asked(endpoint, 1, retries=0, timeout=0.2)


def test_a_server_that_is_not_there_is_no_timeout():
    with pytest.raises(EndpointError, match=r"9/v1 failed after 1 retries: Cannot connect"):
        asked(url("http://127.0.0.1:9"), 1, retries=1)


def test_a_refusal_in_json_is_read_without_its_backslashes():
    with server(lambda n, body: refusal(400, 'Invalid "n"') if "n" in body else echo(n, body)) as (endpoint, bodies):
        assert len(asked(endpoint, 1)[0]) == 2
    assert len(bodies) == 3


def test_the_key_is_in_no_message(caplog):
    caplog.set_level(logging.DEBUG)

    def answer(n, body):
        return refusal(401, "Incorrect API key provided: secret")

    with server(answer) as (endpoint, _), pytest.raises(EndpointError) as error:
        asked(endpoint, 1)
    assert "secret" not in str(error.value) + repr(Connection("u", "secret", {}))
    assert "secret" not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("prefdelta"))


def test_no_more_is_in_memory_than_is_under_way():
    made = []

    def question(number):
        made.append(number)
        return body(number)

    answered = []

    def answer(n, body):
        answered.append(n)
        assert len(made) <= len(answered) + 4
        return echo(n, body)

    with server(answer) as (endpoint, _):
        asked(endpoint, 100, question, concurrency=4)
    assert len(made) == 100


def test_an_error_of_the_caller_is_that_error():
    def fail(number, choices):
        raise ZeroDivisionError

    with server(echo) as (endpoint, _), pytest.raises(ZeroDivisionError):
        connection = Connection(endpoint.base_url, "secret", {})
        ask(connection, 5, body, fail, store=Store({}), run=RequestsRun(concurrency=2, retries=0, timeout=5))


def test_stored_answers_need_no_server():
    with server(echo) as (endpoint, _):
        found = asked(endpoint, 10)
    assert asked(endpoint, 10) == found


LACKING = {
    "n in silence": lambda n, body: completion("a"),
    "n in other words": lambda n, body: refusal(400, "Computer says no") if "n" in body else completion("a"),
    "response_format": lambda n, body: refusal(400, "no response_format here") if "response_format" in body else echo(n, body),
    "seed": lambda n, body: refusal(400, "Unknown parameter: 'seed'") if "seed" in body else echo(n, body),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_neither_do_those_of_a_server_that_lacks_something(lacking):
    def question(number):
        return {**body(number), "response_format": {"type": "json_schema"}}

    with server(LACKING[lacking]) as (endpoint, _):
        found = asked(endpoint, 4, question)
    assert asked(endpoint, 4, question, retries=0) == found


def test_what_one_model_lacks_is_not_kept_from_another():
    def answer(n, body):
        return refusal(400, "no response_format here") if body["model"] == "m" and "response_format" in body else echo(n, body)

    def question(number):
        return {**body(number), "response_format": {}}

    with server(answer) as (endpoint, bodies):
        asked(endpoint, 2, question)
        asked(endpoint, 2, lambda number: {**question(number), "model": "other"})
    assert all("response_format" in body for body in bodies if body["model"] == "other")


@pytest.mark.parametrize("damage", ["", "[1]", '{"m": 5}', "[" * 100_000, "\xff"])
def test_a_damaged_note_of_what_a_server_lacks_is_found_out_anew(damage, tmp_path):
    with server(lambda n, body: completion("a")) as (endpoint, bodies):
        found = asked(endpoint, 2, concurrency=1)
        (note,) = (tmp_path / "store").rglob("learned.json")
        whole = note.read_bytes()
        note.write_text(damage, encoding="latin-1")
        assert asked(endpoint, 2, concurrency=1) == found
        assert note.read_bytes() == whole
    assert len(bodies) == 6
