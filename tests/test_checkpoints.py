"""Checkpoints that are damaged, or not what they say: each is refused with a message, and none runs code."""

import json

import build
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

from prefdelta.checkpoints.fetch import FetchError, fetch_model
from prefdelta.checkpoints.load import CheckpointError, load_config, load_model, load_tokenizer
from prefdelta.checkpoints.manifest import ManifestError, checked_folder, read_manifest, write_manifest
from prefdelta.checkpoints.memory import OutOfMemoryError, fitting
from prefdelta.checkpoints.settings import FetchSettings
from prefdelta.generate.chat import encode
from prefdelta.study.models import Chat


@pytest.fixture
def folder(tmp_path):
    build.checkpoint(tmp_path / "repo", build.reasoning_tokenizer(), layers=2)
    return tmp_path / "repo"


def fetch(repo, output):
    fetch_model([], output / "manifest.json", settings=FetchSettings(repo=str(repo), revision=None, family="f"))
    return read_manifest(output / "manifest.json")


def edit(file, **changes):
    content = json.loads(file.read_text())
    kept = {key: value for key, value in (content | changes).items() if value is not None}
    file.write_text(json.dumps(kept))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def sharded(folder):
    """An index that names a shard which is not there."""
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda folder: cut(folder / "model.safetensors"), r"repo/model\.safetensors is damaged .*download it again"),
        (sharded, r"index\.json names 1 files that are not there, such as model-00002-of-00002\.safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), r"index\.json can't be read .*again"),
        (lambda folder: cut(folder / "config.json"), r"configuration of .*base can't be loaded .*config\.json"),
        (lambda folder: edit(folder / "config.json", model_type="unheard-of"), r"configuration of .*base .*unheard-of"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is an adapter .*merge_and_unload"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "Pickled weights .* not read"),
    ],
    ids=["truncated", "shard", "index", "config", "unknown", "adapter", "pickle"],
)
def test_what_is_no_whole_checkpoint_is_refused_where_it_comes_in(damage, told, folder, tmp_path):
    damage(folder)
    with pytest.raises((FetchError, CheckpointError), match=told):
        fetch(folder, tmp_path / "base")
    assert not (tmp_path / "base" / "manifest.json").exists()


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=3, n_head=2)),
        BloomForCausalLM(BloomConfig(vocab_size=30, hidden_size=8, n_layer=3, n_head=2)),
    ],
    ids=["gpt2", "bloom"],
)
def test_a_model_may_name_its_sizes_as_it_likes(model, tmp_path):
    model.save_pretrained(tmp_path / "repo")
    content = fetch(tmp_path / "repo", tmp_path / "base")
    assert (content["hidden_size"], content["layers"]) == (8, 3)


def reweighted(change):
    def damage(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return damage


LAYER = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "damage, told",
    [
        (reweighted(lambda weights: weights.pop(LAYER)), f"lack 1 tensors of Qwen3ForCausalLM, such as {LAYER}"),
        (reweighted(lambda weights: weights.update({LAYER: torch.zeros(3, 3)})), "can't be loaded .*repo|repo can't be loaded"),
        (reweighted(lambda weights: weights[LAYER].fill_(torch.nan)), f"weight {LAYER} of .*repo is not finite"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers=1, layer_types=None), r"beyond config\.json.*layers\.1"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "repo can't be loaded"),
    ],
    ids=["missing", "mismatched", "not finite", "fewer layers", "pickle"],
)
def test_weights_are_those_that_the_configuration_asks_for(damage, told, folder):
    assert load_model(folder, "auto").config.num_hidden_layers == 2
    damage(folder)
    with pytest.raises(CheckpointError, match=told):
        load_model(folder, "auto")


def test_weights_that_a_narrow_dtype_can_not_hold_are_refused_in_it(folder):
    reweighted(lambda weights: weights[LAYER].fill_(1e5))(folder)
    load_model(folder, "bfloat16")
    with pytest.raises(CheckpointError, match=r"not finite in torch\.float16"):
        load_model(folder, "float16")


@pytest.mark.parametrize("load", [load_config, lambda folder: load_model(folder, "auto"), load_tokenizer])
def test_code_of_a_checkpoint_is_never_run(load, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # as one would answer who is asked
    code = f"open({str(tmp_path / 'run')!r}, 'w')\n"
    for name in ("configuration_x", "modeling_x", "tokenization_x"):
        (folder / f"{name}.py").write_text(code)
    classes = {
        "AutoConfig": "configuration_x.X",
        "AutoModelForCausalLM": "modeling_x.X",
        "AutoTokenizer": ["tokenization_x.X", None],
    }
    edit(folder / "config.json", model_type="x", auto_map=classes)
    edit(folder / "tokenizer_config.json", tokenizer_class="X", auto_map=classes)
    with pytest.raises(CheckpointError, match="code of its own, which is never run"):
        load(folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda folder: cut(folder / "tokenizer.json"), r"tokenizer of .*repo can't be loaded .*tokenizer\.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer of .*repo can't be loaded"),
        (lambda folder: cut(folder / "tokenizer_config.json"), "tokenizer of .*repo can't be loaded"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "repo has no chat template"),
        (
            lambda folder: edit(folder / "tokenizer_config.json", eos_token=None),
            "must have an `eos_token` and has none: .*local copy",
        ),
        (lambda folder: edit(folder / "tokenizer_config.json", eos_token="<|no|>"), "says that it is .*no.*model does not have"),
    ],
    ids=["truncated", "missing", "config", "template", "end", "unknown end"],
)
def test_a_tokenizer_is_whole_and_has_a_template_and_an_end(damage, told, folder):
    load_tokenizer(folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=told):
        load_tokenizer(folder)


def test_a_template_that_refuses_a_system_role_is_named_with_the_key_to_leave_out(folder):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(refusing + template.read_text())
    tokenizer = load_tokenizer(folder)
    assert encode(tokenizer, ["4+3?"], Chat())
    with pytest.raises(CheckpointError, match=r"template of .*repo refuses .*system, user .*not supported.*leave out `system`"):
        encode(tokenizer, ["4+3?"], Chat(system="Think."))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": {}}', '{"files": {"a": "b"}, "bytes": {}}', '{"files": {}, "bytes": {}, "loss": NaN}', "\xff"]
)
def test_a_damaged_manifest_is_named(text, tmp_path):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError, match=rf"{tmp_path}/manifest\.json is no manifest .*Delete it"):
        checked_folder(tmp_path / "manifest.json")


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"manifest\.json can't be read"):
        read_manifest(tmp_path / "manifest.json")


def test_a_manifest_holds_no_number_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path / "manifest.json", {"loss": float("nan")})
    assert not (tmp_path / "manifest.json").exists()


def cuda(_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("work", [lambda n: torch.empty(n), bytearray, cuda], ids=["torch", "python", "cuda"])
def test_out_of_memory_says_what_to_lower(work):
    with pytest.raises(OutOfMemoryError, match=r"lower run\.batch_size"), fitting("lower run.batch_size"):
        work(2**60)


def test_what_is_not_for_want_of_memory_stays_as_it_is():
    with pytest.raises(RuntimeError, match="shape"), fitting("lower run.batch_size"):
        raise RuntimeError("shape mismatch")
