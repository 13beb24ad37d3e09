"""Checkpoints of a local folder and of a hub, which is a server on the loopback here."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import build
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdelta.checkpoints.fetch import FetchError, fetch_model
from prefdelta.checkpoints.manifest import ManifestError, checked_folder, read_manifest
from prefdelta.checkpoints.settings import FetchSettings

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def repo(tmp_path):
    """A checkpoint of a person, with files that are none of its."""
    folder = tmp_path / "repo"
    build.checkpoint(folder, build.reasoning_tokenizer(), layers=2)
    (folder / "LICENSE").write_text("Do as you like.")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"other")
    return folder


def fetch(repo, output, revision=None):
    settings = FetchSettings(repo=str(repo), revision=revision, family="qwen3")
    fetch_model([], output / "manifest.json", settings=settings)
    return output / "manifest.json"


def test_a_local_folder_is_linked_with_its_shape_and_loads(repo, tmp_path):
    manifest = fetch(repo, tmp_path / "base")
    content = read_manifest(manifest)
    assert (content["family"], content["hidden_size"], content["layers"]) == ("qwen3", 16, 2)
    assert content["parameters"] == sum(tensor.numel() for tensor in load_file(repo / "model.safetensors").values())
    assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"} <= set(content["files"])
    assert not {"pytorch_model.bin", "onnx/model.safetensors"} & set(content["files"])
    assert all((tmp_path / "base" / name).resolve() == (repo / name).resolve() for name in content["files"])
    folder = checked_folder(manifest)
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_links_of_the_repository_itself_are_followed(repo, tmp_path):
    # As in the hub's cache, whose snapshots link to blobs.
    (tmp_path / "snapshot").mkdir()
    for place in repo.iterdir():
        (tmp_path / "snapshot" / place.name).symlink_to(place)
    manifest = fetch(tmp_path / "snapshot", tmp_path / "base")
    for name in read_manifest(manifest)["files"]:
        assert (tmp_path / "base" / name).readlink() == repo / name


def test_a_file_that_changes_later_is_found(repo, tmp_path):
    manifest = fetch(repo, tmp_path / "base")
    (repo / "model.safetensors").write_bytes(b"x" + (repo / "model.safetensors").read_bytes()[1:])
    with pytest.raises(ManifestError, match=r"base/model\.safetensors has changed"):
        checked_folder(manifest)
    (repo / "model.safetensors").unlink()
    with pytest.raises(ManifestError, match=r"base/model\.safetensors is missing"):
        checked_folder(manifest)


def test_of_what_was_there_before_nothing_stays(repo, tmp_path):
    (repo / "model-00002-of-00002.safetensors").write_bytes((repo / "model.safetensors").read_bytes())
    before = read_manifest(fetch(repo, tmp_path / "base"))
    (repo / "model-00002-of-00002.safetensors").unlink()
    after = read_manifest(fetch(repo, tmp_path / "base"))
    assert set(before["files"]) - set(after["files"]) == {"model-00002-of-00002.safetensors"}
    assert after["parameters"] == before["parameters"] / 2


def test_the_shape_of_a_model_of_several_senses_is_that_of_its_text(repo, tmp_path):
    config = json.loads((repo / "config.json").read_text()) | {"model_type": "gemma3_text"}
    (repo / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    assert read_manifest(fetch(repo, tmp_path / "base"))["layers"] == 2


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_folder_without_weights_or_configuration_is_refused(name, repo, tmp_path):
    (repo / name).unlink()
    with pytest.raises(FetchError, match=rf"{repo} .*config\.json with \*\.safetensors"):
        fetch(repo, tmp_path / "base")
    assert not (tmp_path / "base" / "manifest.json").exists()


class Hub(BaseHTTPRequestHandler):
    """The hub's answers about ``ann/small``, whose files are those of `folder`; others are refused by their names."""

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/ann/small/revision/"):
            return self.answer(200, json.dumps({"id": "ann/small", "sha": COMMIT, "siblings": []}).encode(), {})
        if path.startswith(f"/api/models/ann/small/tree/{COMMIT}"):
            files = [file for file in self.server.folder.rglob("*") if file.is_file()]
            rows = [{"path": str(file.relative_to(self.server.folder)), "size": file.stat().st_size} for file in files]
            return self.answer(200, json.dumps([{"type": "file", "oid": row["path"], **row} for row in rows]).encode(), {})
        if path.startswith("/ann/small/resolve/"):
            body = (self.server.folder / path.split("/", 5)[5]).read_bytes()
            return self.answer(200, body, {"X-Repo-Commit": COMMIT, "ETag": hashlib.sha1(body).hexdigest()})
        code = "GatedRepo" if "/gated" in path else "RepoNotFound"
        return self.answer(403 if "/gated" in path else 404, b"", {"X-Error-Code": code, "X-Error-Message": code})

    do_HEAD = do_GET

    def answer(self, status, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


FETCH = """
import sys
from pathlib import Path
from prefdelta.checkpoints.fetch import FetchError, fetch_model
from prefdelta.checkpoints.settings import FetchSettings
settings = FetchSettings(repo=sys.argv[2], revision=sys.argv[3] or None, family="qwen3")
try:
    fetch_model([], Path(sys.argv[1]), settings=settings)
except FetchError as error:
    print(error)
"""


def in_a_process(folder, repo, revision="", **env):
    """What a process says that fetches ``repo`` to ``folder``/base: the hub's address is read when its library is imported."""
    words = [sys.executable, "-c", FETCH, str(folder / "base" / "manifest.json"), repo, revision]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env = kept | {"HF_HOME": str(folder / "home"), "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"} | env
    run = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def hub(repo):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = repo, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_repository_of_the_hub_is_downloaded_at_its_revision_and_serves_without_network_later(hub, tmp_path):
    address = f"http://127.0.0.1:{hub.server_port}"
    assert in_a_process(tmp_path, "ann/small", "v1", HF_ENDPOINT=address) == ""
    content = read_manifest(tmp_path / "base" / "manifest.json")
    assert (content["repo"], content["revision"]) == ("ann/small", COMMIT)
    assert AutoModelForCausalLM.from_pretrained(checked_folder(tmp_path / "base" / "manifest.json")).config.hidden_size == 16
    assert any("/revision/v1" in path for path in hub.asked)
    assert not any("pytorch_model" in path or "onnx" in path for path in hub.asked)
    (tmp_path / "base" / "manifest.json").unlink()
    assert in_a_process(tmp_path, "ann/small", COMMIT, HF_HUB_OFFLINE="1") == ""
    assert read_manifest(tmp_path / "base" / "manifest.json")["files"] == content["files"]


@pytest.mark.parametrize("name, reason", [("gated", "GatedRepo"), ("missing", "RepositoryNotFound")])
def test_what_the_hub_refuses_is_explained(name, reason, hub, tmp_path):
    message = in_a_process(tmp_path, f"ann/{name}", HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
    for word in (f"ann/{name} at revision main", reason, "HF_TOKEN"):
        assert word in message
    assert not (tmp_path / "base" / "manifest.json").exists()


def test_without_network_the_repository_and_the_revision_are_named(tmp_path):
    message = in_a_process(tmp_path, "ann/small", "v1", HF_HUB_OFFLINE="1")
    for word in ("ann/small at revision v1 can't be downloaded", "LocalEntryNotFound", "network", "local folder"):
        assert word in message
    assert not (tmp_path / "base" / "manifest.json").exists()


def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_explained(tmp_path):
    message = in_a_process(tmp_path, str(tmp_path / "nowhere"), HF_HUB_OFFLINE="1")
    assert f"{tmp_path / 'nowhere'} at revision main can't be downloaded (HFValidationError" in message
