"""What answers cost: counted over runs, held below a cap by requests and by batches, and gone on from once that is raised."""

import asyncio
import json
import time
from functools import partial

import pytest
from loopback import KEY, completion, content, entries, serve, server, url
from pydantic import ValidationError
from starlette.responses import JSONResponse
from starlette.routing import Route
from test_batch import Provider

from prefdelta.endpoint import batch, client
from prefdelta.endpoint.servers import connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.spending import Spending, most_tokens
from prefdelta.endpoint.store import Store
from prefdelta.study.run import ModelRun, RequestsRun

PRICES = {"input": 2.0, "output": 10.0}
ONE = (5 * 2 + 7 * 10) / 1e6  # of the answers in `loopback`, which tell 5 tokens read and 7 written


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(batch, "POLL", 0.01)


def body(number, model="m"):
    return {"model": model, "messages": [{"role": "user", "content": f"{number:03d}"}], "seed": 100 + number, "max_tokens": 7}


MOST = (most_tokens(body(0))[0] * 2 + 7 * 10) / 1e6  # the most that a request can cost


def ask(endpoint, n, cap=None, by=client.ask, body=body, model="m", prices=PRICES):
    """What was spent after ``n`` requests."""
    run = RequestsRun(prices=prices, cap=cap, concurrency=8, retries=0, timeout=10)
    spending = Spending(model, run, "run.judges.j")
    with connected(endpoint, Served("m", None, "auto", ModelRun()), threads=1, log_file="log") as connection:
        try:
            by(connection, n, body, lambda *_: None, store=Store(connection.identity, spending), run=run)
        finally:
            spending.tell()
    return spending


def test_the_most_that_a_request_can_cost_is_a_token_for_each_byte_and_all_that_may_be_written():
    read, written = most_tokens({"messages": [{"content": "é" * 100}], "n": 3, "max_tokens": 7})
    assert 200 <= read < 260
    assert written == 21
    assert most_tokens({"max_completion_tokens": 4})[1] == 4


def test_tokens_and_price_are_counted_over_runs_and_by_model(caplog):
    caplog.set_level("INFO", logger="prefdelta")
    with server(lambda n, body: completion("x")) as (endpoint, bodies):
        assert ask(endpoint, 3).spent == pytest.approx(3 * ONE)
        again = ask(endpoint, 5)
        assert (again.answers, again.tokens_in, again.tokens_out) == (5, 25, 35)
        assert again.spent == pytest.approx(5 * ONE)
        other = ask(endpoint, 2, body=partial(body, model="other"), model="other", prices={"input": 0, "output": 1e6})
        assert other.spent == 14
        assert ask(endpoint, 5, prices=None).spent == 0
    assert len(bodies) == 7
    assert "0.0004 USD so far for 5 answers of m here (25 tokens read, 35 written)" in caplog.text


def test_what_a_server_does_not_count_is_counted_at_the_most_it_can_be():
    def untold(n, body):
        return JSONResponse({**content("x"), "usage": None})

    with server(untold) as (endpoint, _):
        assert ask(endpoint, 2).spent == pytest.approx(2 * MOST)
        assert ask(endpoint, 2).spent == pytest.approx(2 * MOST)


def test_an_answer_that_lacks_choices_was_paid_for_too(tmp_path):
    with server(lambda n, body: completion("x")) as (endpoint, bodies):
        spent = ask(endpoint, 1, body=lambda number: body(number) | {"n": 2})
        assert spent.answers == len(bodies) == 3
        assert ask(endpoint, 1, body=lambda number: body(number) | {"n": 2}).answers == len(bodies)


@pytest.mark.parametrize("cap", [0, 10 * ONE + 0.99 * MOST, 10 * ONE + 1.5 * MOST])
def test_a_cap_stops_before_the_request_that_could_exceed_it_and_goes_on_after_it_was_raised(cap, tmp_path):
    most = []

    async def slowly(request):
        asked.append(await request.json())
        under_way.append(None)
        most.append(len(under_way) * MOST + (len(asked) - len(under_way)) * ONE)
        await asyncio.sleep(0.02)
        under_way.pop()
        return completion("x")

    asked, under_way = [], []
    with serve([Route("/v1/chat/completions", slowly, methods=["POST"])]) as address:
        with pytest.raises(
            EndpointError, match=r"run\.judges\.j\.cap = .* USD so far .* Raise run\.judges\.j\.cap and run again"
        ):
            ask(url(address), 40, cap)
        assert max(most, default=0) <= cap
        assert len(asked) * ONE + MOST > cap  # no sooner
        assert len(entries(tmp_path / "store")) == len(asked)  # what was under way is kept
        assert ask(url(address), 40, 1.0).spent == pytest.approx(40 * ONE)
        assert len(asked) == len({json.dumps(one) for one in asked}) == 40


def test_a_cap_that_leaves_room_is_never_met():
    with server(lambda n, body: completion("x")) as (endpoint, bodies):
        assert ask(endpoint, 30, 29 * ONE + MOST + 1e-12).answers == 30
    assert len(bodies) == 30


def test_a_batch_is_priced_before_it_is_submitted():
    provider = Provider(lambda body: (200, content("x")))
    cap = 12 * ONE + MOST
    with provider.serving() as endpoint:
        with pytest.raises(EndpointError, match=r"run\.judges\.j\.cap"):
            ask(endpoint, 40, cap, batch.ask)
        done = 0
        for upload in provider.uploads:
            assert done * ONE + len(upload) * MOST <= cap
            done += len(upload)
        assert (done + 1) * ONE + MOST > cap
        assert ask(endpoint, 40, 1.0, batch.ask).spent == pytest.approx(40 * ONE)
    assert sum(map(len, provider.uploads)) == 40


def test_only_the_model_that_was_asked_counts_whatever_an_answer_or_a_setting_names():
    def named(number, model="alias"):
        return {**body(number, model), "provider": {"model": "m"}, "response": 5}

    with server(lambda n, body: completion("x")) as (endpoint, _):
        ask(endpoint, 5, body=named, model="alias")
        assert ask(endpoint, 0).answers == 0
        assert ask(endpoint, 0, model="alias").answers == 5
        assert ask(endpoint, 2, body=lambda number: {"seed": number, **named(number, "m")}).answers == 2


@pytest.mark.parametrize("lacks", [False, True])
def test_a_batch_that_is_collected_twice_counts_once(lacks, tmp_path, monkeypatch):
    provider = Provider(lambda body: (200, content("x")))
    question = (lambda number: body(number) | {"n": 2}) if lacks else body

    def killed(file, **_):
        raise KeyboardInterrupt

    with provider.serving() as endpoint:
        for _ in range(2):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(type(tmp_path), "unlink", killed)
                ask(endpoint, 5, by=batch.ask, body=question)
        assert ask(endpoint, 5, by=batch.ask, body=question).answers == sum(map(len, provider.uploads))
    assert len(provider.batches) == 1 + lacks


def test_a_cap_needs_prices():
    with pytest.raises(ValidationError, match="cap needs prices"):
        RequestsRun(cap=1.0)


def test_what_another_process_puts_counts_once_a_key_is_claimed():
    store = Store({"kind": "url"}, Spending("m", RequestsRun(prices=PRICES), ""))
    other = Store({"kind": "url"})
    other.put(other.key(body(0)), json.dumps(body(0)), content("x"), time.monotonic())
    assert store.claim(store.key(body(1)))
    assert store.spending.spent == pytest.approx(ONE)
