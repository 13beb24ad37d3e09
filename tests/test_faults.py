"""What never gets better ends a job soon and says why; what is hostile costs neither memory nor secrets."""

import json
import logging
import math
import re
import socket
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest
from loopback import KEY, completion, content, refusal, serve, server, url
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from test_batch import Provider
from test_batch import asked as batched
from test_client import asked, echo

from prefdelta.endpoint.refusals import retry_after
from prefdelta.endpoint.serving import EndpointError, serving
from prefdelta.study.endpoints import UrlEndpoint
from prefdelta.study.run import RequestsRun

pytestmark = pytest.mark.usefixtures("asking")


SOON = 0.02  # minutes


def hang(n, body):
    time.sleep(2)
    return echo(n, body)


@pytest.mark.parametrize(
    "respond, told",
    [
        (lambda n, body: refusal(429, "busy"), "busy"),
        (lambda n, body: refusal(429, "busy", **{"retry-after": "1"}), "busy"),
        (lambda n, body: refusal(503, "down", **{"retry-after": "0"}), "down"),
        (hang, "no answer yet"),
    ],
    ids=["429", "429 with a time", "503", "accepts and hangs"],
)
def test_nothing_for_so_many_minutes_ends_the_job(respond, told):
    with (
        server(respond) as (endpoint, bodies),
        pytest.raises(EndpointError, match=rf"nothing for 0\.02 minutes \(.*{told}.*give_up"),
    ):
        asked(endpoint, 1000, retries=10**6, timeout=600, give_up=SOON, concurrency=1 if respond is hang else 4)
    assert 0 < len(bodies) < 1000


def test_who_answers_now_and_then_is_not_given_up():
    def respond(n, body):
        time.sleep(0.2)
        return echo(n, body) if n % 4 == 0 else refusal(429, "busy")

    with server(respond) as (endpoint, bodies):
        asked(endpoint, 3, give_up=SOON, concurrency=1)
    assert len(bodies) == 12


def test_the_bound_is_ten_minutes_or_what_one_request_may_take():
    assert [RequestsRun(timeout=seconds).patience for seconds in (1, 600, 1800)] == [600, 600, 1800]
    assert RequestsRun(timeout=1800, give_up=1).patience == 60


def test_there_is_half_a_second_between_two_tries_whatever_the_server_says(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv(KEY, "secret")
    times = []

    def respond(n, body):
        times.append(time.monotonic())
        return refusal(503, **{"retry-after": "0"}) if n == 1 else echo(n, body)

    with server(respond) as (endpoint, _):
        asked(endpoint, 1)
    assert times[1] - times[0] >= 0.5


@pytest.mark.parametrize("said", ["Fri, 31 Dec 99999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1e30", "7200"])
def test_who_asks_to_be_left_alone_for_too_long_is_an_error(said):
    times = {"retry-after": said}
    with server(lambda n, body: refusal(429, **times)) as (endpoint, bodies), pytest.raises(EndpointError, match="left alone"):
        asked(endpoint, 1)
    assert len(bodies) == 1


@pytest.mark.parametrize("said", ["-5", "nan", "inf", "1e400", "soon", "", "Fri, 99 Foo 2020 99:99:99 GMT", "9" * 5000])
def test_a_time_that_is_none_is_no_error(said):
    with server(lambda n, body: refusal(503, **{"retry-after": said}) if n == 1 else echo(n, body)) as (endpoint, bodies):
        asked(endpoint, 1)
    assert len(bodies) == 2
    assert retry_after({"retry-after": said}) in (None, 0.0)
    assert retry_after({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}) == math.inf


def unknown(*_, **__):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_name_that_does_not_exist_is_told_at_once(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EndpointError, match=r"can't be reached: .*nowhere.*Name or service not known"):
        asked(url("http://nowhere.invalid:1"), 1, retries=10**6)


def test_a_name_that_is_not_found_for_now_is_tried_again(monkeypatch):
    found, tries = socket.getaddrinfo, []

    def busy(host, *words, **more):
        tries.append(host)
        if len(tries) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found(host, *words, **more)

    with server(echo) as (endpoint, bodies):
        monkeypatch.setattr(socket, "getaddrinfo", busy)
        asked(url(endpoint.base_url.removesuffix("/v1").replace("127.0.0.1", "localhost")), 1)
    assert len(bodies) == 1


def test_a_certificate_that_nobody_signed_is_told_at_once(tmp_path):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = []

        def accept():
            while True:
                try:
                    seen.append(context.wrap_socket(listener.accept()[0], server_side=True))
                except ssl.SSLError as error:
                    seen.append(error)
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        with pytest.raises(EndpointError, match=r"can't be reached: .*certificate"):
            asked(url(f"https://127.0.0.1:{listener.getsockname()[1]}"), 1, retries=10**6)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(seen) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_never_followed(status):
    def redirect(n, body):
        return RedirectResponse(f"http://user:pw@127.0.0.1:{other.base_url.rpartition(':')[2]}/x?key=pw", status)

    failed = pytest.raises(EndpointError, match="redirected to")
    with server(echo) as (other, bodies), server(redirect) as (endpoint, tries), failed as error:
        asked(endpoint, 3, concurrency=1)
    assert (len(bodies), len(tries)) == (0, 1)
    assert "pw" not in str(error.value)


def test_a_batch_is_never_uploaded_to_where_it_is_redirected():
    provider = Provider(lambda body: (200, content("2")))

    async def redirect(request):
        return RedirectResponse(f"{other.base_url}/files", 307)

    routes = [Route("/v1/files", redirect, methods=["POST"]), Route("/v1/batches", provider.list)]
    with provider.serving() as other, serve(routes) as address, pytest.raises(EndpointError, match="redirects requests"):
        batched(url(address), 1)
    assert provider.uploads == []


def test_a_servers_health_is_asked_of_itself_only(tmp_path, monkeypatch):
    asked_for = []

    async def moved(request):
        return RedirectResponse(f"{elsewhere}/health")

    async def health(request):
        asked_for.append(1)
        return Response()

    with serve([Route("/health", health)]) as elsewhere, serve([Route("/health", moved)]) as address:
        monkeypatch.setenv("http_proxy", elsewhere)
        with (
            pytest.raises(EndpointError, match="did not answer"),
            serving(["sleep", "60"], f"{address}/health", tmp_path / "log", 1),
        ):
            pass
    assert asked_for == []


def bomb(megabytes):
    """A completion of so many megabytes, compressed."""
    head, tail = json.dumps(content("CUT")).encode().split(b"CUT")
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(part) for part in (head, *[b"a" * 1_000_000] * megabytes, tail)]
    return b"".join(parts) + packer.flush()


def peak():
    """The most memory that this process had at a time, in KiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1])


def test_an_answer_that_fills_the_memory_is_cut_off():
    packed = Response(bomb(300), headers={"content-encoding": "gzip"}, media_type="application/json")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = peak()
    with server(lambda n, body: packed) as (endpoint, _), pytest.raises(EndpointError, match="more than 16 MiB"):
        asked(endpoint, 2, lambda number: {"model": "m", "messages": [], "seed": number}, retries=0)
    assert peak() - before < 100 << 10


@pytest.mark.parametrize("text", ["[" * 200_000, '{"choices": ' * 100_000, '{"choices": [' + "9" * 10_000 + "]}", "\x00", ""])
def test_an_answer_that_can_not_be_parsed_is_tried_again(text):
    hostile = Response(text, media_type="application/json")
    with server(lambda n, body: hostile if n == 1 else echo(n, body)) as (endpoint, bodies):
        asked(endpoint, 1)
    assert len(bodies) == 2


@pytest.mark.parametrize("usage", ["many", [1], {"prompt_tokens": "9", "completion_tokens": -1}, {"prompt_tokens": 1e9}, True])
def test_a_count_of_tokens_that_is_none_is_no_error(usage):
    with server(lambda n, body: JSONResponse(content("a", "b") | {"usage": usage})) as (endpoint, _):
        assert asked(endpoint, 1)[0][0].n_tokens is None


ADDRESSES = ["https://user:hunter2@example.com/v1", "https://example.com/v1?key=hunter2", "https://example.com/v1#hunter2"]
ADDRESSES += ["https://hunter2@example.com/v1", "ftp://example.com/hunter2", "example.com/hunter2", "https://[hunter2/v1"]
ADDRESSES += ["https://user:hunter2@example.com:99999999/v1"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_holds_no_secret_and_none_is_printed(address):
    with pytest.raises(ValidationError) as error:
        UrlEndpoint(kind="url", base_url=address, api_key_env=KEY)
    told = "; ".join(problem["msg"] for problem in error.value.errors())
    assert "base_url" in told
    assert "hunter2" not in told


def test_a_key_with_a_line_break_or_of_other_letters_is_told_by_its_variable(monkeypatch):
    monkeypatch.setenv(KEY, "secret\n")
    with server(echo) as (endpoint, _):
        asked(endpoint, 1)  # of the end of a file
        for wrong in ("sec\nret", "sécret", "\n"):
            monkeypatch.setenv(KEY, wrong)
            with pytest.raises(EndpointError, match=rf"\${KEY}"):
                asked(endpoint, 1)


def test_a_server_that_says_the_key_does_not_get_it_into_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    with server(lambda n, body: refusal(400, "bad key secret") if body["seed"] == 0 else completion("2", "2")) as (endpoint, _):
        asked(endpoint, 3)
    assert "bad key ***" in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("prefdelta") and "secret" in record.getMessage()]
