"""Training on a model of a few thousand parameters: stored references, methods, adapters, stale work, bad references."""

import json
import random

import polars as pl
import pytest
from safetensors.torch import load_file

from prefdelta import train
from prefdelta.microworld import authors, problems
from prefdelta.microworld.pretrain import pretrain_model
from prefdelta.reference import compute_reference
from prefdelta.rubric import CRITERIA, DIMENSIONS
from prefdelta.tables import Pairs, References, Traces, read_table, write_table

RECIPE = {"trainer": "dpo", "beta": 0.5, "learning_rate": 1e-3, "batch_size": 8, "steps": 4, "checkpoint_steps": 2}
CELL = dict.fromkeys(("study", "policy", "method", "judge", "chosen", "rejected", "selection", "seed"), "x")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base model, 20 pairs (faultless over faulty) and the references of both sides, as files."""
    folder = tmp_path_factory.mktemp("train")
    shape = {"family": "qwen3", "hidden_size": 16, "layers": 1, "heads": 2, "operations": [2, 3], "domains": ["arithmetic"]}
    speed = {"steps": 30, "batch_size": 16, "learning_rate": 5e-3, "seed": 0, "threads": 1}
    pretrain_model(folder / "base" / "manifest.json", **shape, **speed, authors=[(1.0, {})])
    rng = random.Random(0)
    drawn = [problems.draw("arithmetic", 3, rng) for _ in range(20)]
    sides = {"chosen": {}, "rejected": dict.fromkeys(DIMENSIONS, 0.5)}
    texts = {side: [authors.write(problem, faults, rng) for problem in drawn] for side, faults in sides.items()}
    prompts = [problems.render(problem, rng) for problem in drawn]
    for side in sides:
        rows = [
            {
                "trace_id": f"{number}:{side}:0",
                "prompt_id": str(number),
                "generator": side,
                "sample": 0,
                "prompt": prompt,
                "text": text,
                "reasoning": text,
                "answer": problems.final_answer(text),
                "correct": side == "chosen",
                "n_tokens": 30,
                "finish_reason": "stop",
            }
            for number, (prompt, text) in enumerate(zip(prompts, texts[side], strict=True))
        ]
        write_table(pl.DataFrame(rows), Traces, folder / f"{side}.parquet")
        reference = folder / f"{side}_reference.parquet"
        compute_reference(folder / f"{side}.parquet", folder / "base" / "manifest.json", reference, batch_size=7, threads=1)
    levels = {f"{side}_{name}": level for side, level in (("chosen", 5.0), ("rejected", 3.0)) for name in CRITERIA}
    rows = [
        {
            "pair_id": str(number),
            "prompt_id": str(number),
            "prompt": prompt,
            "judge": "oracle",
            **{f"{side}_generator": side for side in sides},
            **{f"{side}_trace_id": f"{number}:{side}:0" for side in sides},
            **{side: texts[side][number] for side in sides},
            **{f"{side}_correct": side == "chosen" for side in sides},
            **{f"{side}_tokens": 30 for side in sides},
            **levels,
            **{f"delta_{name}": 2.0 for name in CRITERIA},
        }
        for number, prompt in enumerate(prompts)
    ]
    write_table(pl.DataFrame(rows).select(list(Pairs.to_schema().columns)), Pairs, folder / "pairs.parquet")
    return folder


def run(inputs, output, references=None, **changes):
    stored = {side: inputs / f"{side}_reference.parquet" for side in ("chosen", "rejected")}
    recipe = RECIPE | changes
    train.train_policy(
        inputs / "pairs.parquet",
        inputs / "base" / "manifest.json",
        references or stored,
        output / "manifest.json",
        recipe=recipe,
        n_steps=recipe["steps"],
        cell=CELL,
        seed=3,
        threads=1,
    )
    return json.loads((output / "manifest.json").read_text())


def weights(folder):
    return load_file(folder / "model.safetensors")


def difference(one, other):
    return max(float((tensor - weights(other)[name]).abs().max()) for name, tensor in weights(one).items())


def test_stored_references_train_like_stock_trl(inputs, tmp_path, monkeypatch):
    stored = run(inputs, tmp_path / "stored")
    monkeypatch.setattr(train, "_stored_references", lambda *_: {})  # then the plain DPOTrainer computes its own
    stock = run(inputs, tmp_path / "stock")
    assert stored["losses"] == pytest.approx(stock["losses"], abs=1e-5)
    assert difference(tmp_path / "stored", tmp_path / "stock") < 1e-5
    assert difference(tmp_path / "stored", inputs / "base") > 1e-4


def test_same_cell_and_seed_give_the_same_weights(inputs, tmp_path):
    first, second = run(inputs, tmp_path / "first"), run(inputs, tmp_path / "second")
    assert first["files"]["model.safetensors"] == second["files"]["model.safetensors"]


def test_references_of_another_policy_are_refused(inputs, tmp_path):
    wrong = read_table(inputs / "rejected_reference.parquet", References).with_columns(logp=pl.col("logp") - 3)
    write_table(wrong, References, tmp_path / "wrong.parquet")
    references = {"chosen": inputs / "chosen_reference.parquet", "rejected": tmp_path / "wrong.parquet"}
    with pytest.raises(train.TrainingError, match=r"not ln 2.*wrong\.parquet"):
        run(inputs, tmp_path / "out", references)
    assert not (tmp_path / "out" / "manifest.json").exists()
    missing = {"chosen": inputs / "chosen_reference.parquet", "rejected": inputs / "chosen_reference.parquet"}
    with pytest.raises(train.TrainingError, match="20 rejected traces have no reference"):
        run(inputs, tmp_path / "out", missing)


def test_truncated_pairs_train_with_trls_own_reference(inputs, tmp_path):
    manifest = run(inputs, tmp_path, max_length=30)
    assert manifest["losses"][0] == pytest.approx(0.693147, abs=1e-4)


@pytest.mark.parametrize("trainer", ["kto", "sft"])
def test_other_trainers(inputs, tmp_path, trainer):
    manifest = run(inputs, tmp_path, trainer=trainer, beta=None if trainer == "sft" else 0.5)
    assert len(manifest["losses"]) == manifest["n_steps"] == 4
    assert manifest["n_pairs"] == 20
    assert difference(tmp_path, inputs / "base") > 1e-4


def test_adapter_is_merged_into_a_plain_checkpoint(inputs, tmp_path):
    manifest = run(inputs, tmp_path, lora={"r": 2, "alpha": 4})
    assert manifest["losses"][0] == pytest.approx(0.693147, abs=1e-4)
    assert weights(tmp_path).keys() == weights(inputs / "base").keys()
    assert difference(tmp_path, inputs / "base") > 1e-5


def test_checkpoints_of_other_settings_are_not_resumed(inputs, tmp_path, monkeypatch):
    def killed(self, args, state, *_, **__):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train.Progress, "on_log", killed)
        run(inputs, tmp_path)
    assert list(tmp_path.glob(".trainer/checkpoint-*"))
    manifest = run(inputs, tmp_path, learning_rate=2e-3)
    assert len(manifest["losses"]) == 4
    assert manifest["files"] == run(inputs, tmp_path / "fresh", learning_rate=2e-3)["files"]
