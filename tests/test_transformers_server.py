"""The server of small checkpoints: its completions one by one, its API, and a judge that it serves."""

import contextlib
import json
import os
import random
import shutil
import urllib.error
import urllib.request
from collections import Counter
from functools import partial

import build
import polars as pl
import pytest
import torch
from loopback import running
from starlette.testclient import TestClient
from test_judge import rate

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.checkpoints.settings import PretrainSettings
from prefdelta.endpoint import client, servers
from prefdelta.endpoint.answers import Choice
from prefdelta.endpoint.servers import connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.transformers_server import Completer, application
from prefdelta.judge import rubric
from prefdelta.judge.ratings import JudgeError
from prefdelta.microworld.pretrain import make_tokenizer, pretrain_model
from prefdelta.run import provenance
from prefdelta.study.dimensions import DIMENSIONS, PAPER
from prefdelta.study.endpoints import TransformersEndpoint
from prefdelta.study.run import ModelRun

messages = partial(rubric.messages, PAPER, DIMENSIONS)
parse = partial(rubric.parse, PAPER, DIMENSIONS)
FAULTS = dict.fromkeys(DIMENSIONS, 0.3)
TRACES = build.traces(n_prompts=8, samples=2, faults=FAULTS)
ASKED = [messages(prompt, text) for prompt, text in TRACES.select("prompt", "text").iter_rows()]
ENDPOINT = TransformersEndpoint(kind="transformers", model="rater")


def connecting(checkpoint, log_file, model="rater"):
    return connected(ENDPOINT, Served(model, checkpoint, "float32", ModelRun(gpus=0)), threads=1, log_file=log_file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A judge that has learned the form of its answers and little else."""
    folder = tmp_path_factory.mktemp("rater")
    shape = {"family": "llama", "hidden_size": 32, "layers": 1, "heads": 2, "operations": (2, 4), "domains": ["arithmetic"]}
    speed = {"steps": 400, "batch_size": 16, "learning_rate": 1e-2, "seed": 0}
    settings = PretrainSettings(**shape, **speed, authors=[(1.0, {}), (1.0, FAULTS)], writes="ratings")
    pretrain_model(folder / "manifest.json", settings=settings, threads=1)
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def completer(request, tmp_path_factory):
    """An untrained model, of whom any token may come."""
    folder = tmp_path_factory.mktemp("untrained")
    build.checkpoint(folder, make_tokenizer("ratings"), request.param, layers=2)
    return Completer(folder)


def body(conversation=0, **changes):
    return {"model": "rater", "messages": ASKED[conversation], "temperature": 1.0, "max_tokens": 12, "seed": 7} | changes


def completed(completer, *bodies):
    """The choices of each of ``bodies``, made in one batch."""
    asked = [completer.asked(content) for content in bodies]
    made = iter(completer.complete([choice for choices in asked for choice in choices]))
    return [[next(made) for _ in choices] for choices in asked]


def test_choices_are_as_many_as_asked_for_and_those_of_successive_seeds(completer):
    (three,) = completed(completer, body(n=3))
    assert three == [completed(completer, body(seed=7 + index))[0][0] for index in range(3)]
    assert len(set(three)) == 3
    again, other = completed(completer, body(n=3), body(n=3, seed=8))
    assert (again, other[:2]) == (three, three[1:])


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(completer):
    # Conversations of several lengths, one of them twice, and answers that end at different times.
    temperatures, lengths = [1.0, 0.0, 0.4, 2.5], [12, 1, 30, 5]
    bodies = [
        body(n % 6, seed=100 * n, n=1 + n % 3, temperature=temperatures[n % 4], max_tokens=lengths[n % 3]) for n in range(12)
    ]
    alone = [completed(completer, content)[0] for content in bodies]
    assert len({len(completer.asked(content)[0].ids) for content in bodies}) > 2
    assert completed(completer, *bodies) == alone
    assert completed(completer, *bodies[::-1]) == alone[::-1]


def test_without_temperature_an_answer_is_what_generate_writes(completer):
    for conversation in range(4):
        content = body(conversation, temperature=0, max_tokens=20)
        ids = torch.tensor([completer.asked(content)[0].ids])
        whole = completer.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        written = [token for token in whole[0, ids.shape[1] :].tolist() if token != completer.tokenizer.eos_token_id]
        ((text, _, _),), ((same, _, _),) = completed(completer, content, content | {"seed": 1})
        assert text == same == completer.tokenizer.decode(written)


def test_tokens_are_drawn_with_the_models_probabilities_at_the_temperature(completer):
    ids = torch.tensor([completer.asked(body())[0].ids])
    with torch.inference_mode():
        expected = (completer.model(ids).logits[0, -1] / 0.7).softmax(-1)
    n = 4000
    (made,) = completed(completer, body(n=n, temperature=0.7, max_tokens=1))
    counts = Counter(text for text, reason, _ in made if reason == "length")
    for token, share in enumerate(expected.tolist()):
        if token != completer.tokenizer.eos_token_id and share > 0.01:
            error = 4 * (share * (1 - share) / n) ** 0.5
            assert counts[completer.tokenizer.decode([token])] / n == pytest.approx(share, abs=error)


def test_an_answer_ends_at_max_tokens_or_where_the_model_ends_it(completer, checkpoint):
    ((text, reason, n_tokens),) = completed(completer, body(temperature=0, max_tokens=3))[0]
    assert (reason, n_tokens) == ("length", 3)
    ((whole, _, _),) = completed(completer, body(temperature=0, max_tokens=6))[0]
    assert whole.startswith(text)
    ended = Completer(checkpoint)
    ((text, reason, n_tokens),) = completed(ended, body(temperature=0, max_tokens=100))[0]
    assert (reason, n_tokens) == ("stop", len(ended.tokenizer(text)["input_ids"]) + 1)
    assert parse(Choice(text), "")[1] is None


def test_an_answer_that_may_be_of_any_length_ends_where_the_model_can_read_no_more(completer):
    for length in (None, 999):
        (choice,) = completer.asked(body(max_tokens=length))
        assert choice.max_tokens == 256 - len(choice.ids)


def long(n_tokens, completer):
    """A conversation of ``n_tokens`` tokens."""
    given = len(completer.asked(body(messages=[{"role": "user", "content": ""}]))[0].ids)
    return [{"role": "user", "content": "7" * (n_tokens - given)}]


def test_a_conversation_must_leave_room_for_one_token(completer):
    (choices,) = completed(completer, body(messages=long(255, completer)))
    assert choices[0][1:] == ("length", 1)
    with pytest.raises(ValueError, match="256 tokens exceeds the model's context length of 256"):
        completer.asked(body(messages=long(256, completer)))


def test_control_tokens_in_a_message_are_text(completer):
    said = [{"role": "user", "content": "3<end><assistant>4"}]
    ids = completer.asked(body(messages=said))[0].ids
    assert ids.count(completer.tokenizer.eos_token_id) == 0
    assert ids.count(completer.tokenizer.convert_tokens_to_ids("<assistant>")) == 1  # the template's


@pytest.fixture(scope="module")
def connection(checkpoint, tmp_path_factory):
    """The server, as a job starts it."""
    with connecting(checkpoint, tmp_path_factory.mktemp("served") / "log") as served:
        yield served


def post(connection, content):
    """(status, answer) of a request."""
    request = urllib.request.Request(f"{connection.base_url}/chat/completions", json.dumps(content).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_response_is_a_chat_completion(connection, checkpoint):
    status, response = post(connection, body(n=2, response_format={"type": "json_schema"}))
    assert status == 200
    (made,) = completed(Completer(checkpoint), body(n=2))
    assert [(one["index"], one["message"]["role"]) for one in response["choices"]] == [(0, "assistant"), (1, "assistant")]
    given = [(choice["message"]["content"], choice["finish_reason"]) for choice in response["choices"]]
    assert given == [(text, reason) for text, reason, _ in made]
    n_prompt, n_written = len(Completer(checkpoint).asked(body())[0].ids), sum(n for _, _, n in made)
    assert response["usage"] == {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_written,
        "total_tokens": n_prompt + n_written,
    }
    with urllib.request.urlopen(f"{connection.base_url}/models", timeout=30) as models:
        assert [model["id"] for model in json.load(models)["data"]] == ["rater"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"messages": [{"role": "user", "content": "7" * 300}]}, "context length"),
        ({"temperature": "hot"}, "hot"),
        ({"n": "two"}, "str"),
    ],
    ids=["too long", "no temperature", "no number"],
)
def test_a_request_that_cannot_be_answered_is_refused_and_the_next_one_is_not(change, message, connection):
    status, response = post(connection, body(**change))
    assert status == 400
    assert message in response["error"]["message"]
    assert post(connection, body())[0] == 200


class Fragile(Completer):
    """Can't complete what has the seed 13."""

    def complete(self, choices):
        if any(choice.luck.random() == random.Random(13).random() for choice in choices):
            raise RuntimeError("13")
        return [("", "stop", 1) for _ in choices]


def test_a_batch_that_fails_is_an_error_for_who_asked_and_the_server_goes_on(checkpoint):
    with TestClient(application(Fragile(checkpoint), "m"), raise_server_exceptions=False) as asking:
        statuses = [asking.post("/v1/chat/completions", json=body(seed=seed)).status_code for seed in (12, 13, 14)]
    assert statuses == [200, 500, 200]


def test_traces_are_rated_by_the_checkpoint_and_one_too_long_for_it_is_missing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))
    endless = TRACES.head(1).with_columns(trace_id=pl.lit("q9:g:0"), text=pl.lit("a)+2 to 3=5;" * 40))
    traces = pl.concat([TRACES, endless])
    asked = {"model": "rater", "judge": "learned", "repeats": 2, "manifest": checkpoint / "manifest.json", "max_tokens": 80}
    before = running(str(checkpoint))
    ratings = rate(tmp_path, ENDPOINT, traces, **asked)
    assert running(str(checkpoint)) == before
    assert len(ratings) == len(traces) * 2 * len(DIMENSIONS)
    missing = ratings.filter(trace_id="q9:g:0")
    assert missing["rating"].null_count() == len(missing)
    assert missing["reason"].unique().to_list() == ["longer than the model's context"]
    completer = Completer(checkpoint)
    for prompt, text, trace_id in TRACES.select("prompt", "text", "trace_id").iter_rows():
        seed = client.request_seed(0, DIMENSIONS, prompt, text)
        (made,) = completed(completer, body(messages=messages(prompt, text), temperature=0.6, max_tokens=80, seed=seed, n=2))
        for repeat, (answer, finish_reason, _) in enumerate(made):
            expected, reason = parse(Choice(answer, finish_reason=finish_reason), text)
            given = ratings.filter(trace_id=trace_id, repeat=repeat)
            if reason is None:  # else there was a second try
                assert dict(given.select("dimension", "rating").iter_rows()) == expected
    assert ratings.filter(pl.col("trace_id") != "q9:g:0")["rating"].null_count() < 0.2 * len(ratings)


@contextlib.contextmanager
def nothing(*_):
    yield None


def identity(checkpoint, model="rater"):
    with connecting(checkpoint, "log", model) as connection:
        return connection.identity


def test_answers_in_the_store_belong_to_the_checkpoints_files(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "serving", nothing)
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert identity(copy) == identity(checkpoint)
    assert identity(copy, model="other") != identity(checkpoint)
    (copy / "manifest.json").unlink()
    with (copy / "config.json").open("a") as file:
        file.write(os.linesep)
    write_manifest(copy / "manifest.json", {"steps": 120})
    assert identity(copy) != identity(checkpoint)


@pytest.mark.parametrize("edited", [False, True])
def test_answers_in_the_store_belong_to_the_servers_code(edited, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "serving", nothing)
    before = identity(checkpoint)
    package = shutil.copytree(provenance.PACKAGE, tmp_path / "prefdelta")
    program = package / "endpoint" / "transformers_server.py"
    text = program.read_text()
    program.write_text(text.replace("ROWS = 512", "ROWS = 256" if edited else "ROWS = 512  # choices"))
    assert program.read_text() != text
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert (identity(checkpoint) != before) == edited


def test_a_server_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(JudgeError, match="a server of rater needs the folder of a checkpoint"):
        rate(tmp_path, ENDPOINT, TRACES, model="rater")


def test_a_folder_without_a_model_is_an_error_that_names_the_log(tmp_path):
    write_manifest(tmp_path / "manifest.json", {})
    with (
        pytest.raises(EndpointError, match=f"exit code 1 .*{tmp_path}/log"),
        connecting(tmp_path, tmp_path / "log"),
    ):
        pytest.fail("it was served")
