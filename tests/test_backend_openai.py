"""Generation over an OpenAI-compatible API: what is asked, how answers become completions, and what is left out."""

import json
import logging
from pathlib import Path

import build
import pytest
from loopback import KEY, completion, content, refusal, server, url
from starlette.responses import JSONResponse, Response

from prefdelta.endpoint.client import request_seed
from prefdelta.endpoint.plain import plainly
from prefdelta.generate.completions import Completion, GenerateError, Request, complete
from prefdelta.generate.settings import ApiSettings, GenerationRun
from prefdelta.study.endpoints import VllmEndpoint
from prefdelta.study.run import ModelRun, Prices, RequestsRun
from prefdelta.study.sampling import Sampling


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))


SAMPLING = Sampling(samples=2, temperature=0.7, top_p=0.9, max_new_tokens=50)
REQUESTS = [Request(f"q{number}", f"{number}+1?", SAMPLING) for number in range(3)]


def made(endpoint, requests=REQUESTS, seed=5, concurrency=4, room=None, checkpoint=None, asking=None, generator=None, **changes):
    words = {"model": "m", "endpoint": endpoint, "system": None, "extra_body": {}, "think": ("<think>", "</think>")}
    asking = asking or RequestsRun(concurrency=concurrency, retries=1, timeout=10)
    return complete(
        requests,
        settings=ApiSettings(**words | changes),
        run=GenerationRun(batch_size=1, model=ModelRun(max_model_len=room), requests=asking, generator=generator),
        checkpoint=checkpoint,
        seed=seed,
        threads=1,
        log_file=Path("log"),
    )


def echo(n, body):
    return completion(f"{body['messages'][-1]['content']} {body['seed']}")


def test_each_request_gets_its_samples_in_order():
    with server(echo) as (endpoint, bodies):
        results = made(endpoint)
        seeds = [request_seed(5, request.prompt) for request in REQUESTS]
        expected = [[f"{number}+1? {seed}", f"{number}+1? {seed + 1}"] for number, seed in enumerate(seeds)]
        assert [[sample.text for sample in several] for several in results] == expected
        assert len({sample.text.split()[1] for several in results for sample in several}) == 6
        assert made(endpoint, concurrency=1) == results  # from the store
    assert len(bodies) == 6


def test_a_cap_is_named_by_its_place_in_the_configuration():
    asking = RequestsRun(prices=Prices(input=1, output=1), cap=0)
    with (
        server(echo) as (endpoint, bodies),
        pytest.raises(GenerateError, match=r"^m: .* Raise run\.generators\.api\.cap and run again"),
    ):
        made(endpoint, asking=asking, generator="api")
    assert not bodies


def test_a_request_asks_for_what_is_configured():
    with server(echo) as (endpoint, bodies):
        top_k = SAMPLING.model_copy(update={"top_k": 20})
        made(endpoint, [Request("q", "1+1?", top_k)], system="Be brief.", extra_body={"reasoning_effort": "low"})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    expected = {"model": "m", "messages": messages, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "max_tokens": 50}
    assert len(bodies) == 2
    for body in bodies:
        assert isinstance(body.pop("seed"), int)
        assert body == {**expected, "reasoning_effort": "low"}


@pytest.mark.parametrize("change", [{"system": "x"}, {"extra_body": {"a": 1}}, {"seed": 7}, {"model": "n"}], ids=str)
def test_a_change_of_what_is_asked_is_never_served_from_the_store(change):
    with server(echo) as (endpoint, bodies):
        made(endpoint)
        made(endpoint, **change)
    assert len(bodies) == 12


TOLD = "<think>\n1 and 1\n</think>\n\nIt is 2."


@pytest.mark.parametrize(
    "answer, expected",
    [
        (completion("It is 2.", reasoning_content="1 and 1"), Completion(TOLD, "1 and 1", "It is 2.", 7, "stop")),
        (completion("It is 2.", reasoning="1 and 1"), Completion(TOLD, "1 and 1", "It is 2.", 7, "stop")),
        (completion("<think>1 and 1</think>It is 2."), Completion(TOLD, "1 and 1", "It is 2.", 7, "stop")),
        (completion("It is 2."), Completion("It is 2.", "", "It is 2.", 7, "stop")),
        (
            completion("", reasoning="1 and", finish_reason="length", tokens=50),
            Completion("<think>\n1 and\n", "1 and", "", 50, "length"),
        ),
    ],
)
def test_reasoning_and_response_come_apart(answer, expected):
    with server(lambda n, body: answer) as (endpoint, _):
        assert made(endpoint, REQUESTS[:1]) == [[expected, expected]]


def test_a_surrogate_becomes_what_a_table_can_hold():
    answer = Response(json.dumps(content("It is \ud800")), media_type="application/json")
    with server(lambda n, body: answer) as (endpoint, _):
        assert made(endpoint, REQUESTS[:1])[0][0].text == "It is ?"


@pytest.mark.parametrize(
    "answer, reason",
    [
        (completion("", finish_reason="content_filter"), "stopped by a content filter"),
        (completion("half a sen", finish_reason="content_filter"), "stopped by a content filter"),
        (completion(None, refusal="no"), "refused by the model"),
        (completion(" \n"), "empty"),
        (completion(None, finish_reason="tool_calls"), "ended with 'tool_calls'"),
        (refusal(400, "maximum context length"), "longer than the model's context"),
    ],
)
def test_what_is_no_completion_is_left_out_and_told(answer, reason, caplog):
    caplog.set_level(logging.WARNING, logger="prefdelta")
    first = [request_seed(5, request.prompt) for request in REQUESTS]
    with server(lambda n, body: answer if body["seed"] in first else echo(n, body)) as (endpoint, _):
        results = made(endpoint)
    assert [len(several) for several in results] == [1, 1, 1]
    assert f"3 of 6 completions left out: {reason}" in caplog.text


def test_an_endpoint_that_counts_no_tokens_is_an_error():
    told = {key: value for key, value in content("It is 2.").items() if key != "usage"}
    with server(lambda n, body: JSONResponse(told)) as (endpoint, _), pytest.raises(GenerateError, match="tokens"):
        made(endpoint)


def test_an_endpoint_that_refuses_is_an_error_that_names_model_and_address():
    with server(lambda n, body: refusal(404, "no such model")) as (endpoint, _), pytest.raises(GenerateError) as error:
        made(endpoint)
    for word in ("m: ", endpoint.base_url, "no such model"):
        assert word in str(error.value)


def test_a_missing_key_is_an_error_that_names_the_variable(monkeypatch):
    monkeypatch.delenv(KEY)
    with pytest.raises(GenerateError, match=rf"\${KEY}"):
        made(url("http://127.0.0.1:9"))


def test_of_what_a_server_of_vllm_is_sent_nothing_is_a_control_token(tmp_path):
    tokenizer = build.reasoning_tokenizer("<think>", ("<think>",))
    tokenizer.save_pretrained(tmp_path)
    said, sent = ["4<|end|>3", "<think> <|<|end|>end|>", "4 < 3"], []

    def ask(connection, n, body, answered, timeout):
        sent.extend(body(number) for number in range(n))

    def body(number):
        return {"model": "m", "messages": [{"role": "user", "content": said[number]}]}

    plainly(ask, VllmEndpoint(kind="vllm", model="m"), tmp_path)(None, 3, body, None, timeout=9)
    texts = [made["messages"][0]["content"] for made in sent]
    assert [text.replace("\u200b", "") for text in texts] == said
    assert texts[2] == said[2]
    specials = set(tokenizer.all_special_ids)
    assert not any(specials & set(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert plainly(ask, url("http://127.0.0.1:9"), None) is ask


def test_a_request_that_a_server_of_vllm_would_refuse_for_its_run_settings_is_an_error_before_it_is_started(tmp_path):
    build.reasoning_tokenizer().save_pretrained(tmp_path)
    served = VllmEndpoint(kind="vllm", model="m")
    needed = len(["<|begin|", "|system|", "|user|", "|assistant|>"]) + len("Think.0+1?") + SAMPLING.max_new_tokens
    with pytest.raises(GenerateError, match=rf"3 of 3 .* max_model_len = {needed - 1} .* q0 with {needed}: raise run\.models"):
        made(served, system="Think.", room=needed - 1, checkpoint=tmp_path)
