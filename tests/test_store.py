"""The store of requests and answers: what it gives back, and what it survives."""

import errno
import json
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import entries

from prefdelta.endpoint.store import Store, StoreError

ENDPOINT = {"kind": "url", "base_url": "http://a/v1"}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "1+1?"}], "seed": 3, "temperature": 0.6}
RESPONSE = {"choices": [{"message": {"content": "2 😀 \ud800"}}], "usage": {"completion_tokens": 2}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def put(request=REQUEST, response=RESPONSE, endpoint=ENDPOINT):
    store = Store(endpoint)
    store.put(store.key(request), json.dumps(request), response, 0.5)
    return store


def get(request=REQUEST, endpoint=ENDPOINT):
    store = Store(endpoint)
    return store.get(store.key(request))


def test_an_answer_is_there_for_who_put_it_and_for_who_comes_later(folder):
    store = put()
    assert store.get(store.key(REQUEST)) == RESPONSE == get()
    (entry,) = entries(folder)
    assert entry["key"] == store.key(REQUEST)
    assert (entry["endpoint"], entry["request"], entry["seconds"]) == (ENDPOINT, REQUEST, 0.5)
    assert entry["usage"] == {"completion_tokens": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"temperature": 0.5},
        {"model": "n"},
        {"n": 2},
        {"messages": [{"role": "user", "content": "1+2?"}]},
        {"messages": [{"role": "system", "content": "Grade."}, *REQUEST["messages"]]},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "low"},
    ],
    ids=str,
)
def test_a_request_that_differs_in_anything_is_another_one(change):
    put()
    assert get(REQUEST | change) is None


@pytest.mark.parametrize("endpoint", [{**ENDPOINT, "base_url": "http://b/v1"}, {**ENDPOINT, "flags": ["--x"]}], ids=str)
def test_an_answer_belongs_to_its_endpoint(endpoint):
    put()
    assert get(endpoint=endpoint) is None
    put(response={"choices": []}, endpoint=endpoint)
    assert get() == RESPONSE


def test_the_order_of_keys_does_not_matter():
    put()
    assert get(dict(reversed(REQUEST.items()))) == RESPONSE


VALUES = st.recursive(st.none() | st.text() | st.integers() | st.floats(allow_nan=False), st.lists, max_leaves=3)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_any_answer_comes_back_as_it_was(contents):
    request = {"contents": contents}
    put(request, contents)
    assert get(request) == contents


def test_a_line_that_was_torn_is_no_answer_and_spoils_no_other(folder):
    put()
    put(REQUEST | {"seed": 4})
    for segment in folder.rglob("*.jsonl"):
        whole = segment.read_bytes()
        if json.loads(whole)["request"]["seed"] == 4:
            segment.write_bytes(whole[: len(whole) // 2])
    assert get(REQUEST | {"seed": 4}) is None
    assert get() == RESPONSE
    put(REQUEST | {"seed": 4})
    put(REQUEST | {"seed": 5})
    assert get(REQUEST | {"seed": 4}) == get(REQUEST | {"seed": 5}) == get() == RESPONSE


@pytest.mark.parametrize("damage", [b"", b"\n", b"\0" * 100, b'{"key": "', b"garbage\n\n", b"[1]\n"])
def test_what_stands_after_a_damaged_part_of_a_segment_is_found(damage, folder):
    put()
    (segment,) = folder.rglob("*.jsonl")
    line = segment.read_bytes()
    segment.write_bytes(line[:50] + damage + b"\n" + line)
    assert get() == RESPONSE


def test_an_entry_that_is_damaged_within_is_none(folder):
    put()
    (segment,) = folder.rglob("*.jsonl")
    line = segment.read_bytes()
    segment.write_bytes(line[:200] + b"\0" * 20 + line[220:])
    assert get() is None


def test_no_flipped_bit_is_believed_and_what_was_damaged_can_be_put_again(folder):
    put()
    (segment,) = folder.rglob("*.jsonl")
    line = segment.read_bytes()
    believed = []
    for place, byte in enumerate(line):
        segment.write_bytes(line[:place] + bytes([byte ^ 1 << place % 8]) + line[place + 1 :])
        believed += [place] if get() is not None else []
    assert believed == []
    put()
    assert get() == RESPONSE


def test_a_damaged_line_is_told_with_its_file_and_number(folder, caplog):
    put()
    put(REQUEST | {"seed": 4})
    first, second = (segment.read_bytes() for segment in folder.rglob("*.jsonl"))
    for segment in folder.rglob("*.jsonl"):
        segment.unlink()
    segment = next(folder.iterdir()) / "a.jsonl"
    segment.write_bytes(first + second.replace(b"choices", b"choicfs") + first[:50])  # who wrote it was killed
    Store(ENDPOINT)
    (told,) = caplog.messages
    assert told.startswith(f"{segment}, line 2: a damaged entry is left out, and asked for again")


def old(line):
    """``line`` as it was written before there were checksums."""
    key, _, rest = line.partition(b', "crc32": ')
    return key + b", " + rest[12:]


def test_lines_from_before_there_were_checksums_are_read_where_they_are_whole(folder):
    put()
    (segment,) = folder.rglob("*.jsonl")
    line = old(segment.read_bytes())
    assert list(json.loads(line)) == ["key", "endpoint", "request", "response", "usage", "seconds"]
    segment.write_bytes(line)
    assert get() == RESPONSE
    for damaged in (
        line.replace(b"1+1", b"1+2"),
        line.replace(b'"response"', b'"respomse"'),
        line.replace(b'"key": "', b'"key": "0'),
    ):
        assert damaged != line
        segment.write_bytes(damaged)
        assert get() is None


def test_a_later_store_sees_what_another_process_puts_once_it_claims_the_key(folder):
    first, key = Store(ENDPOINT), Store(ENDPOINT).key(REQUEST)
    put()
    assert first.get(key) is None
    assert first.claim(key)
    assert first.get(key) == RESPONSE
    first.release(key)
    put(REQUEST | {"seed": 5})
    other = first.key(REQUEST | {"seed": 5})
    assert first.claim(other)
    assert first.get(other) == RESPONSE


CLAIMING = """
import sys, time
from prefdelta.endpoint.store import Store
assert Store({"kind": "url", "base_url": "http://a/v1"}).claim(sys.argv[1])
print("claimed", flush=True)
time.sleep(60)
"""


def test_a_claim_keeps_others_away_and_ends_with_its_process():
    store = Store(ENDPOINT)
    key, other = store.key(REQUEST), store.key(REQUEST | {"seed": 4})
    job = subprocess.Popen([sys.executable, "-c", CLAIMING, key], stdout=subprocess.PIPE)
    try:
        assert job.stdout.readline() == b"claimed\n"
        assert not store.claim(key)
        assert store.claim(other)
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
    assert store.claim(key)


def test_without_locks_a_claim_is_granted_and_it_is_told_once(monkeypatch, caplog):
    def lockless(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", lockless)
    store = Store(ENDPOINT)
    assert store.claim(store.key(REQUEST)) and store.claim(store.key(REQUEST))
    assert [("no locks" in told) for told in caplog.messages] == [True]


def test_many_processes_write_at_once_and_nothing_is_lost(folder):
    code = """
import json, sys
from prefdelta.endpoint.store import Store
store = Store({"kind": "url", "base_url": "http://a/v1"})
for number in range(300):
    request = {"who": sys.argv[1], "number": number}
    store.put(store.key(request), json.dumps(request), {"text": sys.argv[1] * 5000}, None)
"""
    jobs = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    store = Store(ENDPOINT)
    for name in "abc":
        for number in range(300):
            assert store.get(store.key({"who": name, "number": number})) == {"text": name * 5000}
    assert len(entries(folder)) == 900


def test_texts_stay_on_the_disk():
    store = Store(ENDPOINT)
    for number in range(100):
        store.put(store.key({"number": number}), json.dumps({"number": number}), {"text": "x" * 200_000}, None)
    tracemalloc.start()
    again = Store(ENDPOINT)
    assert again.get(again.key({"number": 99}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000  # of 20 MB


def test_any_number_of_keys_is_found_and_the_latest_entry_of_each(monkeypatch):
    monkeypatch.setattr("prefdelta.endpoint.store._RECENT", 7)
    store = Store(ENDPOINT)
    keys = [store.key({"number": number}) for number in range(100)]
    for turn in range(3):
        for number in range(0, 100, turn + 1):
            store.put(keys[number], "{}", {"turn": turn, "number": number}, None)
    for reader in (store, Store(ENDPOINT)):
        for number, key in enumerate(keys):
            turn = 2 if number % 3 == 0 else 1 if number % 2 == 0 else 0
            assert reader.get(key) == {"turn": turn, "number": number}
        assert reader.get(store.key({"number": 100})) is None


def test_a_key_that_begins_like_another_is_not_that_one():
    store = put()
    key = store.key(REQUEST)
    assert store.get(key[:16] + key[:16:-1] + "0") is None


def test_keys_take_little_memory(monkeypatch):
    monkeypatch.setattr("prefdelta.endpoint.store._RECENT", 1000)
    store, n, text = Store(ENDPOINT), 10_000, "{}"
    store.put("0" * 64, text, {}, None)
    tracemalloc.start()
    for number in range(n):
        store.put(f"{(number + 1) * 2654435761:064x}"[::-1], text, {}, None)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 16 * n + 200 * 1000  # those that were put last are kept as they are


def test_a_killed_process_loses_nothing_that_was_put(folder):
    code = """
import os, signal
from prefdelta.endpoint.store import Store
store = Store({"kind": "url", "base_url": "http://a/v1"})
for number in range(20):
    store.put(store.key({"number": number}), "{}", {"number": number}, None)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = Store(ENDPOINT)
    assert [store.get(store.key({"number": number})) for number in range(20)] == [{"number": number} for number in range(20)]


def test_without_a_variable_the_store_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFDELTA_STORE")
    monkeypatch.chdir(tmp_path)
    put()
    assert (tmp_path / "store").is_dir()


def test_a_store_that_cannot_be_written_is_an_error_that_names_the_variable(folder):
    folder.write_text("a file")
    with pytest.raises(StoreError, match="PREFDELTA_STORE"):
        put()
