"""Checkpoints that the tests make on the spot, and a vLLM server. Run by `make test-vllm`, which installs vLLM first."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.checkpoints.settings import PretrainSettings
from prefdelta.endpoint.serving import serving
from prefdelta.microworld.pretrain import pretrain_model
from prefdelta.run.processes import free_port
from prefdelta.run.vllm import environment, vllm_python
from prefdelta.study.dimensions import DIMENSIONS

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A model of the micro-world that is right about half of the time when sampled."""
    folder = tmp_path_factory.mktemp("trained")
    settings = PretrainSettings(
        family="qwen3",
        hidden_size=64,
        layers=2,
        heads=2,
        authors=[(1.0, {}), (1.0, dict.fromkeys(DIMENSIONS, 0.15))],
        domains=["arithmetic"],
        operations=(1, 3),
        writes="traces",
        steps=600,
        batch_size=64,
        learning_rate=5e-3,
        seed=0,
    )
    pretrain_model(folder / "manifest.json", settings=settings, threads=1)
    # Makers of models ship sampling settings of their own (Qwen2.5: a repetition penalty), which a study must not inherit.
    change(folder / "generation_config.json", repetition_penalty=1.5, temperature=0.3, top_k=2, do_sample=True)
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory):
    """A model with random weights and a token for each byte; marks of thinking are special tokens, 'Z' is a second end."""
    folder = tmp_path_factory.mktemp("random")
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", additional_special_tokens=special[1:], chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 32}
    config = Qwen3Config(vocab_size=len(vocabulary), num_key_value_heads=1, max_position_embeddings=8192, eos_token_id=0, **sizes)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    change(folder / "generation_config.json", eos_token_id=[0, vocabulary["Z"]])
    write_manifest(folder / "manifest.json", {})
    return folder


def change(file: Path, **values):
    """Sets ``values`` in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.fixture(scope="session")
def server(random_checkpoint, tmp_path_factory):
    """The base URL (without /v1) of a vLLM server of ``random_checkpoint``, which it calls 'judge'."""
    port = free_port()
    command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(random_checkpoint)]
    command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "32", "--no-enable-chunked-prefill"]
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(command, f"http://127.0.0.1:{port}/health", log, patience=240, environment=environment(1)):
        yield f"http://127.0.0.1:{port}"
