"""Reference log-probabilities, with a small random model."""

import build
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from prefdelta.checkpoints.load import CheckpointError
from prefdelta.checkpoints.manifest import ManifestError, write_manifest
from prefdelta.microworld.pretrain import make_tokenizer
from prefdelta.study.models import Chat
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import References, Traces
from prefdelta.train.reference import compute_reference
from prefdelta.train.settings import ReferenceRun, ReferenceSettings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    build.checkpoint(folder, make_tokenizer())
    write_manifest(folder / "manifest.json", {})
    return folder


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """The file of some, and the same table."""
    made = build.traces(n_prompts=7, samples=2, faults={"signal_to_noise": 0.5})
    made = made.with_columns(text=pl.when(pl.int_range(len(made)) == 3).then(pl.lit("#")).otherwise("text"))
    file = tmp_path_factory.mktemp("traces") / "traces.parquet"
    write_table(made, Traces, file)
    return file, made


def compute(traces, checkpoint, folder, batch_size=4, arithmetic="float32", max_length=1024):
    settings = ReferenceSettings(max_length=max_length, arithmetic=arithmetic, chat=Chat())
    files = (traces, checkpoint / "manifest.json", folder / "reference.parquet")
    compute_reference(*files, settings=settings, run=ReferenceRun(batch_size=batch_size), threads=1)
    return read_table(folder / "reference.parquet", References)


@pytest.mark.parametrize(("batch_size", "max_length"), [(1, 1024), (4, 1024), (64, 1024), (4, 40), (4, 30)])
def test_references_are_the_summed_log_probabilities_of_the_completions(checkpoint, traces, tmp_path, batch_size, max_length):
    file, table = traces
    found = compute(file, checkpoint, tmp_path, batch_size, max_length=max_length)
    model, tokenizer, n_cut = AutoModelForCausalLM.from_pretrained(checkpoint).eval(), make_tokenizer(), 0
    assert found["trace_id"].equals(table["trace_id"])
    for row, (prompt, text) in zip(found.iter_rows(named=True), table.select("prompt", "text").iter_rows(), strict=True):
        start, ids = (tokenizer(t)["input_ids"] for t in (f"<user>{prompt}<assistant>", f"<user>{prompt}<assistant>{text}<end>"))
        with torch.inference_mode():
            logps = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        end = min(len(ids), max_length)
        plain = sum(float(logps[position - 1, ids[position]]) for position in range(len(start), end))
        assert row["logp"] == pytest.approx(plain, abs=1e-4)
        # Lengths are those before the cut.
        assert (row["n_prompt_tokens"], row["n_tokens"]) == (len(start), len(ids) - len(start))
        n_cut += end < len(ids)
    assert (n_cut > 2) == (max_length < 1024)


def test_references_of_a_checkpoint_that_was_changed_are_refused(traces, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_manifest(tmp_path / "manifest.json", {})
    (tmp_path / "config.json").write_text("{ }")
    with pytest.raises(ManifestError, match=r"config\.json has changed"):
        compute(traces[0], tmp_path, tmp_path)


def test_a_model_whose_logits_are_not_finite_has_no_references(checkpoint, traces, tmp_path):
    build.overflowing(checkpoint, tmp_path / "model")
    write_manifest(tmp_path / "model" / "manifest.json", {})
    file, table = traces
    n, first = len(table), table["trace_id"][0]
    told = rf"{n} of {n} traces, such as {first}, have no finite log-probability under .*model in float32"
    with pytest.raises(CheckpointError, match=told):
        compute(file, tmp_path / "model", tmp_path)
    assert not (tmp_path / "reference.parquet").exists()


def test_references_in_mixed_precision_are_near_those_in_full(checkpoint, traces, tmp_path):
    full, mixed = (compute(traces[0], checkpoint, tmp_path, arithmetic=name)["logp"] for name in ("float32", "bf16"))
    assert not mixed.equals(full)
    assert mixed.to_list() == pytest.approx(full.to_list(), rel=0.02)


def test_auto_is_the_checkpoints_own_dtype(checkpoint, traces, tmp_path):
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).save_pretrained(half)
    make_tokenizer().save_pretrained(half)
    write_manifest(half / "manifest.json", {})
    found = {name: compute(traces[0], half, tmp_path, arithmetic=name)["logp"] for name in ("float32", "auto")}
    assert not found["auto"].equals(found["float32"])
    assert found["auto"].to_list() == pytest.approx(found["float32"].to_list(), rel=0.02)
    own = {name: compute(traces[0], checkpoint, tmp_path, arithmetic=name)["logp"] for name in ("float32", "auto")}
    assert own["auto"].equals(own["float32"])
    both = {name: compute(traces[0], checkpoint, tmp_path, arithmetic=name)["logp"] for name in ("bf16", "auto-bf16")}
    assert both["auto-bf16"].equals(both["bf16"])
