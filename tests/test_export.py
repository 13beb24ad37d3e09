"""Export: the data set as stock TRL and `datasets` read it, the cards, linked weights, and uploads to a hub on the loopback."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import build
import polars as pl
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard, constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.checkpoints.settings import PretrainSettings
from prefdelta.export import export
from prefdelta.export.settings import ExportSettings, Origin
from prefdelta.measure.settings import Bootstrap
from prefdelta.microworld.pretrain import pretrain_model
from prefdelta.pairs.select import flip
from prefdelta.study.dimensions import THE_FIVE, Rubric
from prefdelta.study.lattice import Cell
from prefdelta.study.selections import GRAMMAR
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Pairs, Predictions

CELL = Cell(policy="p", method="dpo", judge="j", chosen="c", rejected="r", selection="full", seed=0)
HUB = Origin(source="someone/a-model", revision="0" * 40, license="apache-2.0", settings={"think": ["<think>", "</think>"]})
MICROWORLD = Origin(settings={"noise": 0.5})
SETTINGS = ExportSettings(
    study="s",
    cell=CELL,
    prompts={"arithmetic": MICROWORLD},
    generators={"c": HUB, "r": MICROWORLD},
    judge=MICROWORLD,
    policy=HUB,
    license="not stated",
    language="en",
    push=False,
    namespace=None,
    private=True,
    bootstrap=Bootstrap(n_resamples=200, seed=0),
)
RECIPE = {"trainer": "dpo", "beta": 0.1, "learning_rate": 1e-3}
TOKEN = "hf_secret"
STOCK = """
import sys
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

model, data, output = sys.argv[1:]
size = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "bf16": False}
config = DPOConfig(output_dir=output, logging_steps=1, report_to="none", **size)
DPOTrainer(model=model, args=config, train_dataset=load_dataset(data, split="train")).train()
"""


def predictions(samples=2, **tasks):
    """`Predictions` for tasks given as (items, of which the first so many are answered rightly)."""
    rows = [
        {
            "item_id": f"{task}{item}",
            "suite": "out_of_domain",
            "task": task,
            "decoding": "sampled",
            "sample": sample,
            "text": "x",
            "answer": "1",
            "correct": item < n_correct,
            "n_tokens": 1,
            "finish_reason": "stop",
        }
        for task, (n_items, n_correct) in tasks.items()
        for item in range(n_items)
        for sample in range(samples)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A cell's files: 12 pairs, a small checkpoint with the manifest of a training, evaluations of it and of its base."""
    folder = tmp_path_factory.mktemp("export")
    shape = {"family": "qwen3", "hidden_size": 16, "layers": 1, "heads": 2, "operations": (2, 3), "domains": ["arithmetic"]}
    speed = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "seed": 0}
    manifest = folder / "model" / "manifest.json"
    settings = PretrainSettings(**shape, **speed, authors=[(1.0, {})], writes="traces")
    pretrain_model(manifest, settings=settings, threads=1)
    manifest.unlink()
    (folder / "model" / "README.md").write_text("the card of a training")
    training = {
        "cell": vars(CELL),
        "recipe": RECIPE,
        "run": {"micro_batch": 4},
        "n_steps": 3,
        "n_pairs": 12,
        "mean_delta": 0.25,
        "losses": [0.6931, 0.6, 0.5],
    }
    training |= {"n_truncated": {"chosen": 1, "rejected": 2}}
    write_manifest(manifest, training)
    write_table(build.pairs(12), Pairs, folder / "pairs.parquet")
    write_table(predictions(program=(10, 4), story=(5, 2)), Predictions, folder / "base.parquet")
    write_table(predictions(program=(10, 6), story=(5, 5)), Predictions, folder / "evals.parquet")
    return folder


def run(inputs, folder, files=(), **changes):
    """Exports to ``folder`` with other ``files`` and settings where they are given."""
    given = {name: inputs / f"{name}.parquet" for name in ("pairs", "evals")}
    given |= {"base_evals": inputs / "base.parquet", "checkpoint": inputs / "model" / "manifest.json", **dict(files)}
    export.export_cell(**given, folder=folder, settings=SETTINGS.model_copy(update=changes))
    return folder


@pytest.fixture(scope="module")
def exported(inputs, tmp_path_factory):
    return run(inputs, tmp_path_factory.mktemp("exported") / "seed0")


def test_pairs_by_another_rubric_are_exported_with_its_words_and_scale(inputs, tmp_path):
    two = Rubric.model_validate(build.TWO)
    write_table(build.pairs(12, rated=two.rated), Pairs, tmp_path / "pairs.parquet", two.rated)
    folder = run(inputs, tmp_path / "seed0", {"pairs": tmp_path / "pairs.parquet"}, rubric=two) / "dataset"
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("in a dimension, 0 to 10;", "| clarity | 12 |", "- **clarity**: Is it clear? (0: not at all; 10: throughout)"):
        assert words in card
    assert "factuality" not in card.replace(GRAMMAR, "")
    assert json.loads((folder / "lineage.json").read_text(encoding="utf-8"))["rubric"]["scale"] == [0, 10]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_load_dataset_reads_the_pairs_in_conversational_format(inputs, exported, cache):
    data = load_dataset(str(exported / "dataset"))
    assert set(data) == {"train"}
    pairs = read_table(inputs / "pairs.parquet", Pairs)
    assert data["train"][3]["prompt"] == [{"role": "user", "content": pairs["prompt"][3]}]
    for side in ("chosen", "rejected"):
        assert [turns[0] for turns in data["train"][side]] == [{"role": "assistant", "content": text} for text in pairs[side]]
    for column in set(pairs.columns) - {"prompt", "chosen", "rejected"}:
        assert list(data["train"][column]) == pairs[column].to_list()


def test_large_sets_are_divided_and_read_back_in_order(inputs, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(export, "SHARD_BYTES", build.pairs(12).estimated_size() // 3)
    data = run(inputs, tmp_path / "seed0") / "dataset"
    assert len(list(data.glob("data/train-*-of-*.parquet"))) > 2
    assert list(load_dataset(str(data), split="train")["pair_id"]) == build.pairs(12)["pair_id"].to_list()


def test_stock_trl_script_trains_on_it(inputs, exported, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STOCK, str(inputs / "model"), str(exported / "dataset"), str(tmp_path / "tuned")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    state = json.loads((tmp_path / "tuned" / "checkpoint-2" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(0.693147, abs=1e-3)


def test_model_loads_and_its_weights_are_links(inputs, exported):
    AutoModelForCausalLM.from_pretrained(exported / "model")
    assert AutoTokenizer.from_pretrained(exported / "model").chat_template
    assert (exported / "model" / "model.safetensors").samefile(inputs / "model" / "model.safetensors")
    assert not (exported / "model" / "config.json").samefile(inputs / "model" / "config.json")
    assert (inputs / "model" / "README.md").read_text() == "the card of a training"
    assert not (exported / "model" / "manifest.json").exists()


def test_weights_are_copied_where_they_cannot_be_linked(inputs, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    weights = run(inputs, tmp_path / "seed0") / "model" / "model.safetensors"
    assert weights.read_bytes() == (inputs / "model" / "model.safetensors").read_bytes()


def test_dataset_card_states_origin_counts_and_statistics(exported):
    card = DatasetCard.load(exported / "dataset" / "README.md")
    header = card.data.to_dict()
    assert header["license"] == "unknown"
    assert header["language"] == "en"
    assert header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "12 preference pairs on 6 prompts" in card.text
    assert f"| generator: c | someone/a-model | {'0' * 40} | apache-2.0 |" in card.text
    assert "| generator: r | the micro-world | not stated | not stated |" in card.text
    frame = build.pairs(12)
    for criterion in THE_FIVE.criteria:
        assert f"| {criterion} | 12 | {frame[f'delta_{criterion}'].mean():+.2f} |" in card.text
    tokens, right = frame["chosen_tokens"].mean(), 100 * frame["chosen_correct"].mean()
    row = next(line for line in card.text.splitlines() if line.startswith("| chosen | c |"))
    assert f"| {tokens:.1f} |" in row
    assert f"| {right:.1f} % |" in row
    assert '"</think>"' in card.text
    assert "chat templates" in card.text
    assert "{{" not in card.text.replace("{{k}}", "")


def test_lineage_hashes_its_inputs(inputs, exported):
    def digest(name):
        return hashlib.sha256((inputs / name).read_bytes()).hexdigest()

    data = json.loads((exported / "dataset" / "lineage.json").read_text())
    assert data["inputs"]["pairs"]["sha256"] == digest("pairs.parquet")
    assert data["pairs"]["n_pairs"] == 12
    assert "seed" not in data["cell"]  # all seeds share the data set
    model = json.loads((exported / "model" / "lineage.json").read_text())
    assert {name: entry["sha256"] for name, entry in model["inputs"].items()} == {
        "pairs": digest("pairs.parquet"),
        "checkpoint": digest("model/manifest.json"),
        "evals": digest("evals.parquet"),
        "base_evals": digest("base.parquet"),
    }
    assert model["training"]["losses"] == [0.6931, 0.6, 0.5]


def test_flipped_pairs_name_the_sides_as_they_are(inputs, tmp_path):
    write_table(flip(build.pairs(12)), Pairs, tmp_path / "flipped.parquet")
    cell, files = replace(CELL, selection="flipped-12"), {"pairs": tmp_path / "flipped.parquet"}
    card = (run(inputs, tmp_path / "seed0", files, cell=cell) / "dataset" / "README.md").read_text()
    assert "the chosen one is by `r`, the rejected one by `c`" in card


def test_model_card_gives_accuracies_with_counts(exported):
    card = ModelCard.load(exported / "model" / "README.md")
    assert card.data.base_model == "someone/a-model"
    assert card.data.to_dict().get("datasets") is None
    assert all(f'"{name}"' in card.text for name in ("learning_rate", "micro_batch"))
    rows = [line for line in card.text.splitlines() if line.startswith("| out_of_domain |")]
    assert [row.split(" | ")[1:9] for row in rows] == [
        ["all", "sampled", "15", "30", "0", "40.0", "80.0", "+40.0"],
        ["program", "sampled", "10", "20", "0", "40.0", "60.0", "+20.0"],
        ["story", "sampled", "5", "10", "0", "40.0", "100.0", "+60.0"],
    ]


def test_evaluations_of_other_items_are_refused(inputs, tmp_path):
    write_table(predictions(program=(9, 4), story=(5, 2)), Predictions, tmp_path / "base.parquet")
    with pytest.raises(export.ExportError, match=r"evals\.parquet and .*base\.parquet hold different items"):
        run(inputs, tmp_path / "seed0", {"base_evals": tmp_path / "base.parquet"})
    assert [path.name for path in tmp_path.iterdir()] == ["base.parquet"]


def test_a_local_policy_is_not_named_as_a_repository(inputs, tmp_path):
    policy = HUB.model_copy(update={"source": str(inputs / "model")})
    card = ModelCard.load(run(inputs, tmp_path / "seed0", policy=policy) / "model" / "README.md")
    assert card.data.base_model is None


@pytest.fixture
def hub(monkeypatch):
    """A server with the part of the hub's API that an upload uses: repositories by name, files by path."""
    repositories, objects = {}, {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content, status=200):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_request(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            if path.startswith("/objects/"):
                objects[path.removeprefix("/objects/")] = body
                return self.answer({})
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer({"error": "Invalid username or password."}, 401)
            if path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                known = name in repositories
                repositories.setdefault(name, {"type": wanted["type"], "visibility": wanted["visibility"], "files": {}})
                return self.answer({"url": f"{constants.ENDPOINT}/{name}", "error": "exists"}, 409 if known else 200)
            name = next(name for name in repositories if f"/{name}" in path)
            files = repositories[name]["files"]
            if path.endswith("/objects/batch"):
                wanted = json.loads(body)["objects"]
                upload = [
                    {**entry, "actions": {"upload": {"href": f"{constants.ENDPOINT}/objects/{entry['oid']}"}}} for entry in wanted
                ]
                return self.answer({"transfer": "basic", "objects": upload})
            if "/preupload/" in path:
                modes = [
                    {"path": file["path"], "uploadMode": self.mode(file["path"]), "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                return self.answer({"files": modes})
            if "/commit/" in path:
                for line in body.splitlines():
                    operation = json.loads(line)
                    value = operation["value"]
                    if operation["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif operation["key"] == "lfsFile":
                        files[value["path"]] = objects[value["oid"]]
                    elif operation["key"] == "deletedFile":
                        del files[value["path"]]
                return self.answer({"commitUrl": f"{constants.ENDPOINT}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})
            if "/tree/" in path:
                found = [{"type": "file", "path": file, "oid": "0" * 40, "size": len(text)} for file, text in files.items()]
                return self.answer(found)
            return self.answer({"id": name, "sha": "1" * 40, "siblings": [{"rfilename": file} for file in files]})

        @staticmethod
        def mode(path):
            return "lfs" if path.endswith((".parquet", ".safetensors")) else "regular"

        def log_message(self, *_):
            pass

        do_GET = do_POST = do_PUT = handle_request

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield repositories
    server.shutdown()
    server.server_close()


def test_push_uploads_both_as_they_lie_in_the_folder(inputs, tmp_path, hub, cache):
    output = run(inputs, tmp_path / "seed0", push=True, namespace="lab")
    names = {"dataset": "lab/s-j-c_vs_r-full", "model": "lab/s-p-dpo-j-c_vs_r-full-seed0"}
    assert {name: (kept["type"], kept["visibility"]) for name, kept in hub.items()} == {
        name: (kind, "private") for kind, name in names.items()
    }
    for kind, name in names.items():
        local = {str(file.relative_to(output / kind)): file.read_bytes() for file in (output / kind).rglob("*") if file.is_file()}
        assert hub[name]["files"] == local
    card = ModelCard(hub[names["model"]]["files"]["README.md"].decode())
    assert card.data.datasets == [names["dataset"]]
    assert f'load_dataset("{names["dataset"]}"' in (output / "dataset" / "README.md").read_text()


def test_push_again_removes_what_is_no_longer_there(inputs, tmp_path, hub, monkeypatch):
    name = "lab/s-j-c_vs_r-full"
    with monkeypatch.context() as patched:
        patched.setattr(export, "SHARD_BYTES", build.pairs(12).estimated_size() // 3)
        run(inputs, tmp_path / "seed0", push=True, namespace="lab")
    assert sum(path.endswith(".parquet") for path in hub[name]["files"]) > 1
    run(inputs, tmp_path / "seed1", cell=replace(CELL, seed=1), push=True, namespace="lab")
    assert [path for path in hub[name]["files"] if path.endswith(".parquet")] == ["data/train-00000-of-00001.parquet"]


def test_failed_push_keeps_the_folder_and_says_how_to_go_on(inputs, tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(
        export.ExportError, match=r"(?s)lab/s-j-c_vs_r-full failed.*HF_TOKEN.*kept as .*seed0-not-pushed"
    ) as caught:
        run(inputs, tmp_path / "seed0", push=True, namespace="lab")
    assert "hf_wrong" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["seed0-not-pushed"]
    AutoTokenizer.from_pretrained(tmp_path / "seed0-not-pushed" / "model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run(inputs, tmp_path / "seed0", push=True, namespace="lab")
    assert [path.name for path in tmp_path.iterdir()] == ["seed0"]


def test_long_names_are_cut_and_stay_different():
    cells = [replace(CELL, chosen="c" * 60, rejected="r" * 60, seed=seed) for seed in (0, 1)]
    one, other = (export.repositories(SETTINGS.model_copy(update={"cell": cell, "namespace": "lab"})) for cell in cells)
    assert one["dataset"] == other["dataset"]
    assert one["model"] != other["model"]
    assert {len(name.partition("/")[2]) for name in one.values()} == {96}


def test_what_a_killed_job_left_is_cleared(inputs, tmp_path):
    left = tmp_path / ".seed0.partial" / "dataset" / "data"
    left.mkdir(parents=True)
    (left / "train-00000-of-00009.parquet").write_bytes(b"half")
    run(inputs, tmp_path / "seed0")
    assert [path.name for path in tmp_path.iterdir()] == ["seed0"]
    assert len(list((tmp_path / "seed0" / "dataset" / "data").iterdir())) == 1


def test_code_version_outside_a_checkout_is_the_package_version(tmp_path, monkeypatch):
    shutil.copy(export.__file__, tmp_path / "export.py")
    monkeypatch.setattr(export, "__file__", str(tmp_path / "export.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path(tmp_path).parent))
    assert export.code_version().startswith("prefdelta ")
    assert "commit" not in export.code_version()
