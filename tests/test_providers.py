"""Providers and engines answer each in their own words: what is done without, tried again, missing with a reason, or the end."""

import json
import logging

import pytest
from loopback import completion, server
from providers import PROVIDERS, error
from starlette.responses import JSONResponse
from test_client import asked

from prefdelta.endpoint.answers import choices
from prefdelta.endpoint.refusals import Refusal, Terms
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store

SPARED = {"n", "seed", "response_format", "max_tokens"}


pytestmark = pytest.mark.usefixtures("asking")


def spoken(provider):
    """`loopback.server`'s answers of ``provider``: to "long" and "filtered" as to such requests, once busy and overloaded."""
    key, value = provider.refuses
    pending = [provider.busy, provider.overloaded]

    def respond(n, body):
        text = body["messages"][0]["content"]
        if provider.unknown and key in body and body[key] == value:
            return provider.unknown.response()
        if pending and n > 3:
            return pending.pop().response()
        return (getattr(provider, text, None) or good).response()

    good = type(provider.busy)(200, provider.success)
    return respond


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_job_gets_on_with_whatever_a_provider_says(name, caplog):
    provider = PROVIDERS[name]
    key, value = provider.refuses
    texts = [*map(str, range(6)), "long", "filtered", *map(str, range(6, 10))]
    kept = {"messages", "model", key}

    def question(number):
        full = {"model": "m", "messages": [{"role": "user", "content": texts[number]}], "seed": 10 * number, "max_tokens": 50}
        return {**{name: full[name] for name in full if name in kept | {"seed"}}, key: value}

    caplog.set_level(logging.WARNING, logger="prefdelta")
    with server(spoken(provider)) as (endpoint, bodies):
        spared = key in SPARED or value == 1
        if not spared:
            with pytest.raises(EndpointError, match=rf"`omit: \[{key}\]`"):
                asked(endpoint, 1, question)
            endpoint = endpoint.model_copy(update={"omit": [key]})
        found = asked(endpoint, len(texts), question, concurrency=2)
        if key == "seed":  # left out, and yet each question its own
            assert len({json.dumps(body) for body in bodies if key not in body}) == len(texts)
    for number, text in enumerate(texts):
        declined = getattr(provider, text, None) is not None
        assert len(found[number]) == (value if key == "n" else 1)
        for choice in found[number]:
            assert (choice.declined is not None) == declined, (text, choice)
            if not declined:
                assert (choice.content, choice.reasoning, choice.finish_reason) == provider.read
    assert caplog.text.count(f"does not know `{key}`") == spared
    assert key == "seed" or len(bodies) < 3 * len(texts)


LIMITS = ["length", "MAX_TOKENS", "max_tokens", "model_length", "model_context_window_exceeded"]
LIMITS += ["time_limit", "max_completion_tokens", "truncated", "incomplete", "not_finished", "ERROR_LIMIT", "max_time"]
LIMITS += ["contextLengthReached", "maxPredictedTokensReached", "token_limit", "output_limit_exceeded"]
NO_ANSWER = {"content_filter": "filter", "SAFETY": "filter", "content_filter: RECITATION": "filter", "refusal": "model"}
NO_ANSWER |= {reason: f"'{reason}'" for reason in ("other", "language", "user_cancel", "rainbow")}
NO_ANSWER |= {"tool_calls": "'tool_calls'", "tool_use": "'tool_use'", "guardrail_intervened": "filter"}


def ended(reason):
    return choices({"choices": [{"finish_reason": reason, "message": {"content": "4"}}]})[0]


def test_ends_of_all_servers_are_stop_or_length_or_no_answer():
    for reason in ("stop", "eos", "eos_token", "end_turn", "STOP", "stop_sequence", "COMPLETE"):
        assert (ended(reason).finish_reason, ended(reason).declined) == ("stop", None), reason
    assert (ended(None).finish_reason, ended(None).declined) == (None, None)
    for reason in LIMITS:
        assert (ended(reason).finish_reason, ended(reason).declined) == ("length", None), reason
    for reason, told in NO_ANSWER.items():
        assert told in ended(reason).declined
    for reason in ("error", "abort", "canceled", "insufficient_system_resource"):
        with pytest.raises(ValueError, match=reason):
            ended(reason)


def test_an_end_that_nobody_knows_is_told_once(caplog):
    assert ended("moon").declined == ended("moon").declined == "ended with 'moon'"
    assert caplog.text.count("moon") == 1


@pytest.mark.parametrize(
    "message, content, reasoning",
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", ""),
        ({"content": [{"type": "reasoning", "reasoning": "r"}, {"type": "output_text", "text": "a"}]}, "a", "r"),
        ({"content": [{"type": "thinking", "thinking": "r"}, "a"]}, "a", "r"),
        ({"content": None, "reasoning": [{"type": "text", "text": "r"}]}, None, "r"),
        ({"content": "a", "reasoning_content": {"text": "r"}}, "a", "r"),
        ({"content": 5, "reasoning": 7}, None, ""),
        ({"content": [[], None, {"type": None}, {"text": {"text": []}}]}, "", ""),
    ],
)
def test_content_and_reasoning_come_in_parts(message, content, reasoning):
    (choice,) = choices({"choices": [{"finish_reason": "stop", "message": message}], "usage": {"completion_tokens": "7"}})
    assert (choice.content, choice.reasoning, choice.n_tokens) == (content, reasoning, None)


def few(share, message="Computer says no", status=400):
    """Refuses one in ``share`` of questions, by their seeds."""
    return lambda n, body: error(status, message).response() if body["seed"] % share == 0 else completion("2")


def single(number):
    return {"model": "m", "messages": [{"role": "user", "content": str(number)}], "seed": number + 1}


@pytest.mark.parametrize("status", [400, 403, 404, 406, 413, 422, 451])
def test_few_refusals_among_answers_are_missing_answers_with_a_reason(status, caplog):
    with server(few(25, status=status)) as (endpoint, _):
        found = asked(endpoint, 100, single)
    declined = [number for number in found if found[number][0].declined]
    assert declined == [24, 49, 74, 99]
    assert found[24][0].declined == f"declined by the endpoint with status {status}"
    assert "Computer says no" in caplog.text


def test_the_first_refusals_all_alike_end_the_job_at_once():
    with server(few(1)) as (endpoint, bodies), pytest.raises(EndpointError, match=r"refused 4 requests, .*400: Computer says no"):
        asked(endpoint, 1000, single)
    assert len(bodies) < 20


def test_too_large_a_share_of_refusals_ends_the_job():
    with server(few(4)) as (endpoint, bodies), pytest.raises(EndpointError, match=r"refused 21 requests, and answered \d+: 400"):
        asked(endpoint, 1000, single)
    assert len(bodies) < 120


@pytest.mark.parametrize("status", [401, 402, 405, 410, 501])
def test_what_holds_for_all_requests_ends_the_job_at_the_first(status):
    with server(few(10, "no", status)) as (endpoint, bodies), pytest.raises(EndpointError, match=f"{status}: no"):
        asked(endpoint, 1000, single, concurrency=1)
    assert len(bodies) == 10


def test_an_account_without_money_ends_the_job_though_it_is_called_a_rate_limit():
    spent = error(429, "You exceeded your current quota", type="insufficient_quota", code="insufficient_quota")
    with server(lambda n, body: spent.response()) as (endpoint, bodies), pytest.raises(EndpointError, match="current quota"):
        asked(endpoint, 5, single, concurrency=1)
    assert len(bodies) == 1


BROKE = {
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.": 400,
    "Access denied, please make sure your account is in good standing: your balance is not enough": 400,
    "Your team has either used all available credits or reached its monthly spending limit.": 403,
    "You have reached your specified API usage limits.": 400,
    "Insufficient Balance": 429,
    "No payment method: add one": 404,
    "Insufficient credits": 500,
    "insufficient_user_quota": 403,
}


@pytest.mark.parametrize("words", BROKE)
def test_an_account_without_money_ends_the_job_in_whatever_words(words):
    def respond(n, body):
        return completion("2") if n <= 6 else error(BROKE[words], words).response()

    with server(respond) as (endpoint, bodies), pytest.raises(EndpointError, match="want of money") as failed:
        asked(endpoint, 24, single, concurrency=1)
    assert words in str(failed.value)
    assert len(bodies) == 7


def test_a_limit_of_rate_or_size_that_names_where_to_pay_is_no_want_of_money():
    page = "Need more? Upgrade at https://console.example.com/settings/billing"
    said = ["You exceeded your current quota, please check your plan and billing details.", f"Rate limit reached. {page}"]
    assert [Refusal(429, words).passing for words in said] == [True, True]
    assert not Refusal(413, f"Request too large. {page}").broke
    assert not Refusal(400, page).broke


def test_so_many_questions_in_a_row_without_an_answer_end_the_job_whatever_their_share():
    def respond(n, body):
        return completion("2") if n <= 900 else error(400, "Computer says no").response()

    with server(respond) as (endpoint, bodies), pytest.raises(EndpointError, match="none of 20 questions in a row"):
        asked(endpoint, 1000, single)
    assert len(bodies) < 940


def test_more_refusals_than_answers_end_the_job():
    def respond(n, body):
        return completion("2") if n <= 6 else error(400, "Computer says no").response()

    with server(respond) as (endpoint, _), pytest.raises(EndpointError, match="refused 12 requests, and answered 6: 400"):
        asked(endpoint, 18, single)


def test_one_question_that_is_refused_however_often_it_is_asked_leaves_the_others():
    def question(number):
        return {**single(0 if 900 <= number < 925 else number + 1), "seed": number}

    def respond(n, body):
        return error(400, "no").response() if body["messages"][0]["content"] == "0" else completion("2")

    with server(respond) as (endpoint, _):
        found = asked(endpoint, 1000, question)
    assert [number for number in found if found[number][0].declined] == list(range(900, 925))


def test_refusals_far_apart_are_no_row_to_a_rerun_that_meets_only_them():
    with server(few(25)) as (endpoint, bodies):
        asked(endpoint, 750, single)
        asked(endpoint, 750, single)
    assert len(bodies) == 780


POISON = {
    "500": lambda: error(500, "internal").response(),
    "no choices": lambda: JSONResponse({"id": "x", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}),
    "choices are null": lambda: JSONResponse({"choices": None}),
    "failed amidst": lambda: completion("x", finish_reason="error"),
    "too large": lambda: completion("x" * (17 << 20)),
    "404": lambda: error(404, "no endpoint can handle this").response(),
    "406": lambda: error(406, "blocked").response(),
    "451": lambda: error(451, "blocked").response(),
}


@pytest.mark.parametrize("place", [0, 3, 19])
@pytest.mark.parametrize("poison", POISON)
def test_one_request_that_always_fails_is_a_missing_answer_also_to_a_rerun(poison, place):
    def respond(n, body):
        return POISON[poison]() if body["seed"] == place + 1 else completion("2")

    with server(respond) as (endpoint, _):
        for _ in range(2):
            found = asked(endpoint, 20, single, retries=1)
            declined = {number: found[number][0].declined for number in found if found[number][0].declined}
            assert list(declined) == [place]
            assert declined[place].startswith(("declined by the endpoint", "failed at each try"))


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_all_from_some_time_on_ends_the_job(status):
    def respond(n, body):
        return completion("2") if n <= 10 else error(status, "down").response()

    with server(respond) as (endpoint, bodies), pytest.raises(EndpointError, match=f"failed after 1 retries: {status}: down"):
        asked(endpoint, 1000, single, retries=1)
    assert len(bodies) < 50


def test_refusals_that_a_rerun_meets_again_do_not_end_it():
    with server(few(25)) as (endpoint, bodies):
        asked(endpoint, 100, single, concurrency=1)
        asked(endpoint, 100, single, concurrency=1)
    assert len(bodies) == 104


def test_repeats_are_draws_of_their_own_without_a_seed(tmp_path):
    unknown = error(400, "Unknown parameter: 'seed'.", param="seed")
    answers = iter("abcdef")

    def respond(n, body):
        return unknown.response() if "seed" in body else completion(next(answers))

    def question(number):
        return {**single(0), "seed": number}

    with server(respond) as (endpoint, bodies):
        found = asked(endpoint, 3, question, concurrency=1)
        assert asked(endpoint, 3, question) == found  # from the store, whatever the seed
    assert [found[number][0].content for number in range(3)] == ["a", "b", "c"]
    assert len(bodies) == 4


def test_a_key_that_is_omitted_is_never_sent():
    def question(number):
        return {**single(number), "temperature": 0.6, "max_tokens": 5, "n": 2}

    with server(lambda n, body: completion("2")) as (endpoint, bodies):
        omitting = endpoint.model_copy(update={"omit": ["temperature", "seed", "max_tokens", "n"]})
        assert [len(choices) for choices in asked(omitting, 2, question).values()] == [2, 2]
    assert {tuple(sorted(body)) for body in bodies} == {("max_completion_tokens", "messages", "model")}
    assert len(bodies) == 4


def test_a_key_is_left_out_by_itself_only_at_its_default():
    terms = Terms("u", frozenset())
    terms.keep(Store({}))
    refused = Refusal(400, json.dumps({"error": {"message": "top_p is not supported", "param": "top_p"}}))
    assert terms.refuse(refused, {"model": "m", "messages": [], "top_p": 1.0}) is None
    assert terms.parts({"model": "m", "top_p": 1.0}) == [{"model": "m"}]
    assert terms.parts({"model": "m", "top_p": 0.9}) == [{"model": "m", "top_p": 0.9}]
    with pytest.raises(EndpointError, match=r"omit: \[top_p\]"):
        terms.refuse(refused, {"model": "m", "messages": [], "top_p": 0.9})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<html>",
        "[" * 100_000,
        '{"error": ' * 50 + "1" + "}" * 50,
        '{"error": null, "detail": [null, 5, {"loc": "x", "param": 7}]}',
    ],
)
def test_any_words_of_a_refusal_can_be_read(content):
    assert Refusal(400, content).said is not None
