"""The Batch API of a small provider on the loopback: submitted once, polled, collected, also by a job that starts again."""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import subprocess
import sys
from pathlib import Path

import build
import pytest
from loopback import KEY, content, entries, eventually, serve, url
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from prefdelta.endpoint import batch
from prefdelta.endpoint.servers import connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.store import Store
from prefdelta.generate.backend_openai import complete
from prefdelta.generate.completions import Request
from prefdelta.generate.settings import ApiSettings, GenerationRun
from prefdelta.judge.ratings import rate_traces
from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.judges import Judge
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Ratings, Traces


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(batch, "POLL", 0.02)


class Provider:
    """Takes files and batches; ``answer(body)`` gives status and content of each request, None where it is left undone."""

    def __init__(self, answer, polls=2, status="completed"):
        self.answer, self.polls, self.status = answer, polls, status
        self.files, self.batches, self.left, self.uploads = {}, {}, {}, []

    def file(self, text):
        name = f"file-{len(self.files)}"
        self.files[name] = text
        return name

    async def upload(self, request):
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        parts = [part for part in (await request.body()).split(b"--" + boundary) if b"filename=" in part]
        text = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()
        self.uploads.append([json.loads(line) for line in text.splitlines()])
        made = {"id": self.file(text), "object": "file", "bytes": len(text), "created_at": 0, "filename": "f"}
        return JSONResponse({**made, "purpose": "batch", "status": "processed"})

    async def create(self, request):
        asked = await request.json()
        assert (asked["endpoint"], asked["completion_window"]) == ("/v1/chat/completions", "24h")
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"id": name, "object": "batch", "created_at": 0, "status": "validating", **asked}
        self.left[name] = self.polls
        return JSONResponse(self.batches[name])

    async def retrieve(self, request):
        name = request.path_params["name"]
        if name not in self.batches:
            return JSONResponse({"error": {"message": "no such batch"}}, status_code=404)
        self.left[name] -= 1
        if self.left[name] <= 0 and self.batches[name]["status"] == "validating":
            self.end(self.batches[name])
        return JSONResponse(self.batches[name])

    def end(self, made):
        made["status"] = self.status
        if self.status == "failed":
            made["errors"] = {
                "object": "list",
                "data": [{"message": "enqueued token limit reached", "code": "token_limit_exceeded"}],
            }
            return
        output, errors = [], []
        for line in map(json.loads, self.files[made["input_file_id"]].splitlines()):
            answered = self.answer(line["body"])
            if answered is None:
                reply = {
                    "custom_id": line["custom_id"],
                    "response": None,
                    "error": {"code": "batch_expired", "message": "too late"},
                }
                errors.append(json.dumps(reply))
                continue
            status, body = answered
            reply = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            (output if status == 200 else errors).append(json.dumps(reply))
        made["output_file_id"] = self.file("\n".join(reversed(output)) + "\n") if output else None
        made["error_file_id"] = self.file("\n".join(errors) + "\n") if errors else None

    async def list(self, request):
        return JSONResponse({"object": "list", "data": list(self.batches.values())[::-1], "has_more": False})

    async def download(self, request):
        return PlainTextResponse(self.files[request.path_params["name"]])

    @contextlib.contextmanager
    def serving(self):
        routes = [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files/{name}/content", self.download),
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.list),
            Route("/v1/batches/{name}", self.retrieve),
        ]
        with serve(routes) as address:
            yield url(address)


def body(number):
    return {"model": "m", "messages": [{"role": "user", "content": str(number)}], "n": 2, "seed": 10 * number}


def echo(body):
    return 200, content(*[body["messages"][0]["content"]] * body.get("n", 1))


def asked(endpoint, n, body=body):
    found = {}
    with connected(endpoint, Served("m", None, "auto", ModelRun()), threads=1, log_file="log") as connection:
        batch.ask(
            connection, n, body, found.__setitem__, store=Store(connection.identity), run=RequestsRun(retries=1, timeout=10)
        )
    assert list(found) == list(range(n))
    return {number: [choice.content for choice in found[number]] for number in range(n)}


def waiting(store):
    return sorted(file.suffix for file in store.rglob("batches/*") if not file.name.startswith("."))


def test_questions_are_uploaded_and_answers_collected_in_order(tmp_path):
    provider = Provider(echo)
    with provider.serving() as endpoint:
        assert asked(endpoint, 20) == {number: [str(number)] * 2 for number in range(20)}
        assert asked(endpoint, 20) == {number: [str(number)] * 2 for number in range(20)}
    assert [[line["body"] for line in upload] for upload in provider.uploads] == [[body(number) for number in range(20)]]
    assert {(line["method"], line["url"]) for line in provider.uploads[0]} == {("POST", "/v1/chat/completions")}
    assert len(entries(tmp_path / "store")) == 20
    assert waiting(tmp_path / "store") == []


def test_the_same_question_is_submitted_once():
    provider = Provider(echo)
    with provider.serving() as endpoint:
        assert asked(endpoint, 6, lambda number: body(number % 2))[5] == ["1", "1"]
    assert len(provider.uploads[0]) == 2


@pytest.mark.parametrize("limit", [{"LARGEST_COUNT": 3}, {"LARGEST_BYTES": 700}])
def test_a_batch_keeps_the_providers_limits(limit, monkeypatch):
    for name, value in limit.items():
        monkeypatch.setattr(batch, name, value)
    provider = Provider(echo)
    with provider.serving() as endpoint:
        assert asked(endpoint, 10)[9] == ["9", "9"]
    sizes = [len(upload) for upload in provider.uploads]
    assert sizes == ([3, 3, 3, 1] if "LARGEST_COUNT" in limit else sizes)
    assert len(sizes) > 2
    assert sum(sizes) == 10
    texts = [text for name, text in provider.files.items() if '"method"' in text]
    assert all(len(text) <= batch.LARGEST_BYTES for text in texts)


JOB = """
import sys
sys.path.insert(0, sys.argv[1])
import loopback, test_batch
from prefdelta.endpoint import batch
batch.POLL = 0.02
test_batch.asked(loopback.url(sys.argv[2]), int(sys.argv[3]))
"""


def killed(provider, endpoint, n, store):
    """A job that asks ``n`` questions is killed while it waits for its batch, which ends thereafter."""
    words = [sys.executable, "-c", JOB, str(Path(__file__).parent), endpoint.base_url.removesuffix("/v1"), str(n)]
    job = subprocess.Popen(words)
    eventually(lambda: waiting(store) == [".json", ".jsonl"], patience=90)
    job.kill()
    job.wait()
    provider.polls = 2
    provider.left = dict.fromkeys(provider.left, 2)


def test_two_runs_at_once_submit_once(tmp_path):
    class Slow(Provider):
        async def upload(self, request):
            await asyncio.sleep(0.5)
            return await super().upload(request)

    provider = Slow(echo, polls=10)
    with provider.serving() as endpoint:
        runs = [multiprocessing.get_context("fork").Process(target=asked, args=(endpoint, 5)) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert [len(upload) for upload in provider.uploads] == [5]
    assert len(entries(tmp_path / "store")) == 5


def test_a_job_that_is_killed_while_it_waits_polls_the_same_batch_when_it_starts_again(tmp_path):
    provider = Provider(echo, polls=10**9)
    with provider.serving() as endpoint:
        killed(provider, endpoint, 5, tmp_path / "store")
        # Also questions that were not in it: they are all that is submitted.
        assert asked(endpoint, 7) == {number: [str(number)] * 2 for number in range(7)}
    assert [len(upload) for upload in provider.uploads] == [5, 2]
    assert waiting(tmp_path / "store") == []


def test_a_batch_that_was_created_but_not_noted_is_found_by_its_name(tmp_path):
    provider = Provider(echo, polls=10**9)
    with provider.serving() as endpoint:
        killed(provider, endpoint, 5, tmp_path / "store")
        (note,) = (tmp_path / "store").rglob("batches/*.json")
        note.unlink()
        assert asked(endpoint, 5)[4] == ["4", "4"]
    assert len(provider.uploads) == len(provider.batches) == 1


def test_a_question_that_another_jobs_batch_holds_is_taken_from_there_and_the_rest_stays_for_that_job(tmp_path):
    provider = Provider(echo, polls=10**9)
    with provider.serving() as endpoint:
        killed(provider, endpoint, 5, tmp_path / "store")
        assert asked(endpoint, 1)[0] == ["0", "0"]
        assert asked(endpoint, 5)[4] == ["4", "4"]
    assert len(provider.uploads) == 1


def test_what_a_batch_leaves_undone_goes_into_another(tmp_path):
    provider = Provider(lambda body: None if len(provider.batches) == 1 and body["seed"] > 20 else echo(body), status="expired")
    with provider.serving() as endpoint:
        assert asked(endpoint, 6)[5] == ["5", "5"]
    assert [len(upload) for upload in provider.uploads] == [6, 3]


def test_a_passing_failure_of_one_request_is_submitted_again():
    broken = 500, {"error": {"message": "oops"}}
    provider = Provider(lambda body: broken if len(provider.batches) == 1 and body["seed"] == 10 else echo(body))
    with provider.serving() as endpoint:
        assert asked(endpoint, 3)[1] == ["1", "1"]
    assert [len(upload) for upload in provider.uploads] == [3, 1]


@pytest.mark.parametrize(
    "status, words", [("failed", "enqueued token limit"), ("cancelled", "was cancelled"), ("expired", "none of 3")]
)
def test_a_batch_that_brings_nothing_is_an_error_that_says_why_and_can_be_tried_again(status, words, tmp_path):
    provider = Provider(lambda body: None, status=status)
    with provider.serving() as endpoint:
        with pytest.raises(EndpointError, match=words):
            asked(endpoint, 3)
        assert waiting(tmp_path / "store") == []
        provider.status, provider.answer = "completed", echo
        assert asked(endpoint, 3)[2] == ["2", "2"]


def test_what_a_cancelled_batch_has_answered_is_kept(tmp_path):
    provider = Provider(lambda body: echo(body) if body["seed"] == 0 else None, status="cancelled")
    with provider.serving() as endpoint, pytest.raises(EndpointError, match="cancelled"):
        asked(endpoint, 3)
    assert len(entries(tmp_path / "store")) == 1


def test_a_request_that_is_refused_for_good_is_an_error_and_the_others_are_kept(tmp_path):
    refused = 401, {"error": {"message": "unknown key"}}
    provider = Provider(lambda body: refused if body["seed"] == 0 else echo(body))
    with provider.serving() as endpoint, pytest.raises(EndpointError, match="unknown key"):
        asked(endpoint, 3)
    assert len(entries(tmp_path / "store")) == 2


def test_few_refusals_among_answers_are_missing_answers_and_all_alike_are_an_error():
    refused = 400, {"error": {"message": "Computer says no"}}
    provider = Provider(lambda body: refused if body["seed"] == 0 else echo(body))
    with provider.serving() as endpoint:
        assert asked(endpoint, 3) == {0: [None, None], 1: ["1", "1"], 2: ["2", "2"]}
    assert [len(upload) for upload in provider.uploads] == [3]
    provider = Provider(lambda body: refused)
    with provider.serving() as endpoint, pytest.raises(EndpointError, match="Computer says no"):
        asked(endpoint, 6)


def test_a_provider_that_makes_one_choice_only_and_says_so_in_its_own_words_gets_single_requests():
    provider = Provider(lambda body: (400, {"error": {"message": "Computer says no"}}) if "n" in body else echo(body))
    with provider.serving() as endpoint:
        assert asked(endpoint, 3)[2] == ["2", "2"]
    assert [len(upload) for upload in provider.uploads] == [3, 6]


def test_a_request_that_is_declined_is_an_answer_without_content():
    long = 400, {"error": {"message": "maximum context length", "code": "context_length_exceeded"}}
    provider = Provider(lambda body: long if body["seed"] == 0 else echo(body))
    with provider.serving() as endpoint:
        assert asked(endpoint, 2) == {0: [None, None], 1: ["1", "1"]}
    assert len(provider.uploads) == 1


def test_what_the_provider_does_not_know_is_done_without(caplog):
    def answer(body):
        lack = next((key for key in ("response_format", "n") if key in body), None)
        return (400, {"error": {"message": f"'{lack}' is not supported", "param": lack}}) if lack else echo(body)

    caplog.set_level(logging.WARNING, logger="prefdelta")
    provider = Provider(answer)
    with provider.serving() as endpoint:
        assert asked(endpoint, 3, lambda number: {**body(number), "response_format": {}})[2] == ["2", "2"]
    assert [len(upload) for upload in provider.uploads] == [3, 3, 6]
    assert caplog.text.count("does not know") == 2


@pytest.mark.parametrize("answer", [echo, lambda body: (200, content("a"))], ids=["response_format", "n in silence"])
def test_what_a_provider_lacks_is_known_to_a_rerun(answer):
    def question(number):
        return {**body(number), "response_format": {}}

    unknown = 400, {"error": {"message": "'response_format' is not supported", "param": "response_format"}}
    provider = Provider(lambda body: unknown if "response_format" in body else answer(body))
    with provider.serving() as endpoint:
        found = asked(endpoint, 3, question)
        n_batches = len(provider.batches)
    assert asked(endpoint, 3, question) == found
    assert len(provider.batches) == n_batches


@pytest.mark.parametrize(
    "poison",
    [(200, {"choices": []}), (200, "bad"), (200, None), (500, {"error": "oops"}), (404, {"error": "no"}), (451, {"error": "no"})],
    ids=str,
)
def test_a_request_that_two_batches_have_left_without_an_answer_is_missing(poison):
    provider = Provider(lambda body: poison if body["seed"] == 30 else echo(body))
    with provider.serving() as endpoint:
        for _ in range(2):
            assert asked(endpoint, 20) == {number: [None if number == 3 else str(number)] * 2 for number in range(20)}
    tries = 2 if poison[0] in (200, 500) else 1
    assert [len(upload) for upload in provider.uploads] == [20] + [1] * (2 * tries - 1)


def test_so_many_in_a_row_that_a_batch_refuses_end_the_job():
    refused = 400, {"error": {"message": "Computer says no"}}
    provider = Provider(lambda body: refused if body["seed"] >= 9800 else echo(body))
    with provider.serving() as endpoint, pytest.raises(EndpointError, match="none of 20 questions in a row"):
        asked(endpoint, 1000)


class Odd(Provider):
    """Its first batch has lines in its output that ``odd`` makes of good ones, from the third."""

    def __init__(self, odd):
        super().__init__(echo)
        self.odd = odd

    def file(self, text):
        if '"method"' not in text and len(self.batches) == 1:
            lines = text.splitlines()
            text = "".join(f"{line}\n" for line in [*lines[:2], *map(self.odd, lines[2:])])
        return super().file(text)


def answering(response):
    return lambda line: json.dumps({**json.loads(line), "response": response})


ODD = {
    "no JSON": lambda line: "garbage",
    "torn": lambda line: line[:-5],
    "a list": lambda line: "[1]",
    "deep": lambda line: "[" * 100_000,
    "empty": lambda line: "{}",
    "a list for a name": lambda line: json.dumps({**json.loads(line), "custom_id": [1]}),
    "another name": lambda line: json.dumps({**json.loads(line), "custom_id": "0" * 64}),
    "the response a list": answering([1]),
    "the response a text": answering("x"),
    "no status": answering({"status_code": None}),
    "a status in words": answering({"status_code": "fine", "body": content("a", "b")}),
    "too long": lambda line: line[:-1] + " " * (17 << 20) + "}",
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_lines_of_a_batch_are_left_out_and_their_requests_asked_again(odd, tmp_path, caplog):
    provider = Odd(ODD[odd])
    with provider.serving() as endpoint:
        assert asked(endpoint, 4) == {number: [str(number)] * 2 for number in range(4)}
    assert [len(upload) for upload in provider.uploads] == [4, 2]
    assert len(entries(tmp_path / "store")) == 4
    assert ("is no answer" in caplog.text) == (odd != "no status")


def test_a_status_in_digits_is_one():
    provider = Odd(lambda line: line.replace('"status_code": 200', '"status_code": "200"'))
    with provider.serving() as endpoint:
        assert asked(endpoint, 4)[3] == ["3", "3"]
    assert len(provider.uploads) == 1


def test_a_batch_of_which_nothing_can_be_read_is_kept(tmp_path):
    provider = Provider(echo)
    plain = provider.file
    provider.file = lambda text: plain(text if '"method"' in text else "<html>\nBad gateway\n")
    with provider.serving() as endpoint:
        with pytest.raises(EndpointError, match="no line that can be read"):
            asked(endpoint, 2)
        assert waiting(tmp_path / "store") == [".json", ".jsonl"]
        (output,) = [name for name, text in provider.files.items() if text.startswith("<html>")]
        lines = map(json.loads, provider.files[next(iter(provider.files))].splitlines())
        replies = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": echo(line["body"])[1]}} for line in lines
        ]
        provider.files[output] = "".join(json.dumps(reply) + "\n" for reply in replies)
        assert asked(endpoint, 2)[1] == ["1", "1"]
    assert len(provider.batches) == 1


def test_a_batch_of_another_account_is_an_error_that_names_the_file(tmp_path):
    provider = Provider(echo, polls=10**9)
    with provider.serving() as endpoint:
        killed(provider, endpoint, 2, tmp_path / "store")
        provider.batches.clear()
        with pytest.raises(EndpointError, match=r"does not know batch batch-0 .*\.jsonl"):
            asked(endpoint, 2)
    assert len(provider.uploads) == 1


def test_traces_are_judged_and_written_by_batches(tmp_path):
    traces = build.traces(n_prompts=2, samples=1)
    write_table(traces, Traces, tmp_path / "traces.parquet")

    def answer(body):
        text = json.dumps(dict.fromkeys(DIMENSIONS, 4))
        return 200, content(*(["Well", text] if "n" in body else [text]))

    judge_provider, writer = Provider(answer), Provider(echo)
    requests, model = RequestsRun(batch=True, concurrency=1, retries=1, timeout=10), ModelRun()
    with judge_provider.serving() as endpoint:
        judge = Judge(model="m", endpoint=endpoint, repeats=2, choices_per_request=2, max_tokens=9, reasoning_effort="low")
        rate_traces(
            tmp_path / "traces.parquet",
            None,
            None,
            tmp_path / "ratings.parquet",
            settings=RatingsSettings(judge="j", settings=judge),
            run=RatingsRun(requests=requests, model=model),
            threads=1,
            log_file=tmp_path / "log",
        )
    ratings = read_table(tmp_path / "ratings.parquet", Ratings)
    assert ratings["rating"].to_list() == [4] * 20
    assert [len(upload) for upload in judge_provider.uploads] == [2, 2]  # and once more what could not be read
    with writer.serving() as endpoint:
        sampling = Sampling(samples=2, temperature=1, max_new_tokens=9)
        results = complete(
            [Request("q", "1+1?", sampling)],
            settings=ApiSettings(model="m", endpoint=endpoint, system=None, extra_body={}, think=("<think>", "</think>")),
            run=GenerationRun(batch_size=1, model=model, requests=requests),
            checkpoint=None,
            seed=0,
            threads=1,
            log_file=tmp_path / "log",
        )
    assert [made.text for made in results[0]] == ["1+1?"] * 2
