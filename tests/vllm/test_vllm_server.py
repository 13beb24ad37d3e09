"""vLLM's OpenAI-compatible server, started as a job starts it: what judge and generators ask of it."""

import json
import urllib.request

import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from prefdelta.endpoint.answers import Choice
from prefdelta.generate.chat import encode
from prefdelta.judge import rubric
from prefdelta.study.dimensions import DIMENSIONS, PAPER
from prefdelta.study.models import Chat


@pytest.fixture(scope="module")
def client(server):
    return OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=120)


def ask(client, **changes):
    schema = rubric.response_format(PAPER, DIMENSIONS)
    settings = {"model": "judge", "messages": rubric.messages(PAPER, DIMENSIONS, "1+1", "1+1=2;#2"), "response_format": schema}
    settings |= {"n": 5, "temperature": 1.0, "max_tokens": 256, "seed": 1}
    return client.chat.completions.create(**(settings | changes))


def test_five_structured_ratings_come_from_one_request(client):
    response = ask(client)
    assert len(response.choices) == 5
    ratings = [rubric.parse(PAPER, DIMENSIONS, Choice(choice.message.content), "") for choice in response.choices]
    assert all(reason is None for _, reason in ratings)
    assert len({tuple(levels.values()) for levels, _ in ratings}) > 1
    assert response.usage.completion_tokens == sum(len(choice.message.content) + 1 for choice in response.choices)  # bytes, end


def test_a_request_with_a_seed_is_answered_alike_again(client):
    first, again, other = ask(client), ask(client), ask(client, seed=2)
    contents = [[choice.message.content for choice in response.choices] for response in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]


def test_logprobs_come_with_each_token(client):
    choice = ask(client, n=1, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens[: len(choice.message.content)]) == choice.message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) >= 3 for token in tokens)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("switches", [{}, {"enable_thinking": False}])
def test_prompts_are_tokenised_as_the_server_does(system, switches, server, random_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(random_checkpoint)
    (ids,) = encode(tokenizer, ["How much is 1 + 1?"], Chat(system=system, chat_template_kwargs=switches))
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "How much is 1 + 1?"})
    body = {"model": "judge", "messages": messages, "add_generation_prompt": True, "chat_template_kwargs": switches}
    request = urllib.request.Request(f"{server}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["tokens"] == ids
