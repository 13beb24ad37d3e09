"""Training on a model of a few thousand parameters: stored references, methods, adapters, stale work, bad references."""

import json
import os
import random
import re
import shutil
import signal
import threading
from dataclasses import asdict
from math import log

import build
import polars as pl
import psutil
import pytest
import torch
from datasets import Dataset
from loopback import eventually
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from prefdelta.checkpoints.load import CheckpointError
from prefdelta.checkpoints.manifest import read_manifest, write_manifest
from prefdelta.checkpoints.memory import OutOfMemoryError
from prefdelta.checkpoints.settings import PretrainSettings
from prefdelta.generate.chat import render
from prefdelta.microworld import authors, problems
from prefdelta.microworld.pretrain import PretrainError, make_tokenizer, pretrain_model
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.lattice import SIDES, Cell
from prefdelta.study.models import Author, Chat
from prefdelta.study.recipe import Gates, Recipe
from prefdelta.study.run import TrainingRun
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Pairs, References, Traces
from prefdelta.train import fit
from prefdelta.train.policy import train_policy
from prefdelta.train.reference import compute_reference
from prefdelta.train.settings import PolicyRun, PolicySettings, ReferenceRun, ReferenceSettings
from prefdelta.train.watched import TrainingError

RECIPE = {"trainer": "dpo", "beta": 0.5, "learning_rate": 1e-3, "batch_size": 8, "steps": 4}
RUN = {"checkpoint_steps": 2}
CUT = 40  # tokens, which cut some traces of each side and no prompt
LN2 = log(2)
OPEN = Gates(judge_coverage=0, identical_pairs=1, truncated=1)
CELL = Cell(policy="p", method="m", judge="j", chosen="good", rejected="bad", selection="full", seed=0)


def store_references(folder, traces, max_length=1024):
    """References of both sides' ``traces`` (a folder), under the base model of ``folder``."""
    settings = ReferenceSettings(max_length=max_length, arithmetic="float32", chat=Chat())
    for side in SIDES:
        files = (traces / f"{side}.parquet", folder / "base" / "manifest.json", reference(folder, side, max_length))
        compute_reference(*files, settings=settings, run=ReferenceRun(batch_size=7), threads=1)


def reference(folder, side, max_length=1024):
    return folder / f"{side}-{max_length}.parquet"


def made(folder, prompts, texts):
    """Files of a base model's folder: `Traces` of both sides, their references, and `Pairs`."""
    for side in SIDES:
        rows = [
            {
                "trace_id": f"{number}:{side}:0",
                "prompt_id": str(number),
                "generator": side,
                "sample": 0,
                "prompt": prompt,
                "text": text,
                "reasoning": "",
                "response": text,
                "answer": None,
                "correct": side == "chosen",
                "n_tokens": 30,
                "finish_reason": "stop",
            }
            for number, (prompt, text) in enumerate(zip(prompts, texts[side], strict=True))
        ]
        write_table(pl.DataFrame(rows, schema_overrides={"answer": pl.String}), Traces, folder / f"{side}.parquet")
    for max_length in (CUT, 1024):
        store_references(folder, folder, max_length)
    levels = {f"{side}_{name}": level for side, level in (("chosen", 5.0), ("rejected", 3.0)) for name in THE_FIVE.criteria}
    rows = [
        {
            "pair_id": str(number),
            "prompt_id": str(number),
            "prompt": prompt,
            "judge": "oracle",
            **{f"{side}_generator": side for side in texts},
            **{f"{side}_trace_id": f"{number}:{side}:0" for side in texts},
            **{side: texts[side][number] for side in texts},
            **{f"{side}_correct": side == "chosen" for side in texts},
            **{f"{side}_tokens": 30 for side in texts},
            **levels,
            **{f"delta_{name}": 2.0 for name in THE_FIVE.criteria},
        }
        for number, prompt in enumerate(prompts)
    ]
    write_table(pl.DataFrame(rows).select(list(Pairs.by(THE_FIVE).to_schema().columns)), Pairs, folder / "pairs.parquet")
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base model, 20 pairs (faultless over faulty) and the references of both sides, as files."""
    folder = tmp_path_factory.mktemp("train")
    shape = {"family": "qwen3", "hidden_size": 16, "layers": 1, "heads": 2, "operations": (2, 3), "domains": ["arithmetic"]}
    speed = {"steps": 30, "batch_size": 16, "learning_rate": 5e-3, "seed": 0}
    settings = PretrainSettings(**shape, **speed, authors=[(1.0, {})], writes="traces")
    pretrain_model(folder / "base" / "manifest.json", settings=settings, threads=1)
    rng = random.Random(0)
    drawn = [problems.random_problem("arithmetic", rng.choice([2, 3]), rng) for _ in range(20)]
    sides = {"chosen": {}, "rejected": dict.fromkeys(DIMENSIONS, 0.5)}
    texts = {side: [authors.write(problem, Author(**faults), rng) for problem in drawn] for side, faults in sides.items()}
    return made(folder, [problems.render(problem, rng) for problem in drawn], texts)


def run(inputs, output, references=None, pairs=None, machine=None, **changes):
    recipe, how = Recipe.model_validate(RECIPE | changes), TrainingRun(**RUN | (machine or {}))
    stored = references or {side: reference(inputs, side, recipe.max_length) for side in SIDES}
    unit = recipe.unit(how)
    train_policy(
        pairs or inputs / "pairs.parquet",
        inputs / "base" / "manifest.json",
        {},
        stored if recipe.has_reference else {},
        output / "manifest.json",
        settings=PolicySettings(study="s", recipe=recipe, n_steps=recipe.steps, unit=unit, cell=CELL, chat=Chat(), seed=3),
        run=PolicyRun(training=how, gates=OPEN),
        threads=1,
        log_file=output.with_name(f"{output.name}.log"),
    )
    return read_manifest(output / "manifest.json")


def weights(folder):
    return load_file(folder / "model.safetensors")


def difference(one, other):
    return max(float((tensor - weights(other)[name]).abs().max()) for name, tensor in weights(one).items())


def stock(inputs, output, trainer="dpo", lora=None, **changes):
    """The losses of TRL's own trainer on the same pairs, as texts; its model goes to ``output``."""
    set_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(inputs / "base")
    pairs = read_table(inputs / "pairs.parquet", Pairs)
    prompts = [render(tokenizer, prompt, Chat()) for prompt in pairs["prompt"]]
    sides = {side: [text + tokenizer.eos_token for text in pairs[side]] for side in ("chosen", "rejected")}
    arguments = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear", "seed": 3, "beta": 0.5}
    arguments |= {"output_dir": output / "work", "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    arguments |= {"gradient_checkpointing": False, "bf16": False, "save_strategy": "no", **changes}
    if trainer == "dpo":
        data = Dataset.from_dict({"prompt": prompts, **sides})
        settings = DPOConfig(**arguments)
    elif trainer == "simpo":
        data = Dataset.from_dict({"prompt": prompts, **sides})
        settings = CPOConfig(**arguments, loss_type="simpo", cpo_alpha=0.0)
    elif trainer == "sft":
        del arguments["beta"]
        data = Dataset.from_dict({"prompt": prompts, "completion": sides["chosen"]})
        settings = SFTConfig(**arguments)
    else:
        labels = [side == "chosen" for side in sides for _ in prompts]
        data = Dataset.from_dict({"prompt": prompts * 2, "completion": sides["chosen"] + sides["rejected"], "label": labels})
        data = data.shuffle(seed=3)
        settings = KTOConfig(**arguments, train_sampling_strategy="sequential", dataloader_drop_last=True)
    adapter = LoraConfig(**lora, task_type="CAUSAL_LM", target_modules="all-linear") if lora else None
    kind = {"dpo": DPOTrainer, "kto": KTOTrainer, "sft": SFTTrainer, "simpo": CPOTrainer}[trainer]
    model = AutoModelForCausalLM.from_pretrained(inputs / "base") if trainer == "simpo" else str(inputs / "base")
    made = kind(model, args=settings, train_dataset=data, processing_class=tokenizer, peft_config=adapter)
    made.train()
    (made.model.merge_and_unload() if lora else made.model).save_pretrained(output)
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


@pytest.mark.parametrize("max_length", [1024, CUT])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"trainer": "kto"}, {"trainer": "kto"}),
        ({"trainer": "sft", "beta": None}, {"trainer": "sft"}),
        ({"lora": {"r": 2, "alpha": 4}}, {"lora": {"r": 2, "lora_alpha": 4}}),
    ],
    ids=["dpo", "kto", "sft", "lora"],
)
def test_training_is_that_of_stock_trl(inputs, tmp_path, ours, theirs, max_length):
    manifest = run(inputs, tmp_path / "ours", **ours, steps=3, max_length=max_length)
    losses = stock(inputs, tmp_path / "stock", **theirs, max_steps=3, max_length=max_length)
    assert manifest["losses"] == pytest.approx(losses, abs=1e-5)
    assert manifest["losses"][0] == pytest.approx({"kto": 0.5, "sft": losses[0]}.get(theirs.get("trainer"), LN2), abs=1e-4)
    assert abs(manifest["losses"][-1] - losses[0]) > 1e-4
    assert difference(tmp_path / "ours", tmp_path / "stock") < 1e-5
    assert difference(tmp_path / "ours", inputs / "base") > 1e-4


LOSSES = {
    "ipo": ({}, {"loss_type": ["ipo"]}, 1.0),
    "robust": ({"label_smoothing": 0.2}, {"loss_type": ["robust"], "label_smoothing": 0.2}, LN2),
    "apo_zero": ({}, {"loss_type": ["apo_zero"]}, 1.0),
    "sigmoid_norm": ({}, {"loss_type": ["sigmoid_norm"]}, LN2),
    "simpo": ({"margin": 0.3}, {"trainer": "simpo", "simpo_gamma": 0.3}, None),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_that_of_stock_trl_and_begins_where_policy_and_reference_are_equal(inputs, tmp_path, loss):
    ours, theirs, first = LOSSES[loss]
    manifest = run(inputs, tmp_path / "ours", loss=loss, **ours, steps=3, max_length=CUT)
    losses = stock(inputs, tmp_path / "stock", **theirs, max_steps=3, max_length=CUT)
    assert manifest["losses"] == pytest.approx(losses, abs=1e-5)
    assert manifest["losses"][0] == pytest.approx(first or losses[0], abs=1e-5)
    assert abs(manifest["losses"][-1] - losses[0]) > 1e-4
    assert difference(tmp_path / "ours", tmp_path / "stock") < 1e-5


@pytest.mark.parametrize("loss", ["ipo", "apo_zero"])
def test_references_of_another_policy_are_refused_whatever_the_loss(inputs, tmp_path, loss):
    wrong = read_table(reference(inputs, "rejected"), References).with_columns(logp=pl.col("logp") - 3)
    write_table(wrong, References, tmp_path / "wrong.parquet")
    references = {"chosen": reference(inputs, "chosen"), "rejected": tmp_path / "wrong.parquet"}
    with pytest.raises(TrainingError, match=r"not 1\.0000.*wrong\.parquet"):
        run(inputs, tmp_path / "out", references, loss=loss)


def test_same_cell_and_seed_give_the_same_weights(inputs, tmp_path):
    first, second = run(inputs, tmp_path / "first"), run(inputs, tmp_path / "second")
    assert first["files"]["model.safetensors"] == second["files"]["model.safetensors"]


def test_references_of_another_policy_are_refused(inputs, tmp_path):
    wrong = read_table(reference(inputs, "rejected"), References).with_columns(logp=pl.col("logp") - 3)
    write_table(wrong, References, tmp_path / "wrong.parquet")
    references = {"chosen": reference(inputs, "chosen"), "rejected": tmp_path / "wrong.parquet"}
    with pytest.raises(TrainingError, match=r"not 0\.6931.*wrong\.parquet"):
        run(inputs, tmp_path / "out", references)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(TrainingError, match=r"20 rejected traces have no reference in .*chosen-1024\.parquet"):
        run(inputs, tmp_path / "out", dict.fromkeys(SIDES, reference(inputs, "chosen")))


def test_references_at_another_length_are_refused(inputs, tmp_path):
    with pytest.raises(TrainingError, match=r"not 0\.6931.*chosen-1024\.parquet"):
        run(inputs, tmp_path / "out", {side: reference(inputs, side) for side in SIDES}, max_length=CUT)


def lengths(inputs, side):
    """Tokens of prompt and completion of each pair."""
    tokenizer = make_tokenizer()
    pairs = read_table(inputs / "pairs.parquet", Pairs)
    return [len(tokenizer(f"<user>{p}<assistant>{t}<end>")["input_ids"]) for p, t in pairs.select("prompt", side).iter_rows()]


@pytest.mark.parametrize("trainer", ["dpo", "kto", "sft"])
def test_traces_that_the_limit_cuts_are_counted_for_each_side(inputs, tmp_path, trainer):
    recipe = {"trainer": trainer, "beta": None if trainer == "sft" else 0.5, "max_length": CUT, "steps": 1}
    expected = {side: sum(length > CUT for length in lengths(inputs, side)) for side in SIDES}
    assert 0 < expected["chosen"] < expected["rejected"] <= 20
    assert run(inputs, tmp_path / "cut", **recipe)["n_truncated"] == expected
    assert run(inputs, tmp_path / "whole", **recipe | {"max_length": 1024})["n_truncated"] == {"chosen": 0, "rejected": 0}


def test_a_prompt_that_fills_the_limit_alone_is_an_error(inputs, tmp_path):
    with pytest.raises(TrainingError, match="20 prompts fill max_length 5 alone, such as 0"):
        run(inputs, tmp_path / "out", {side: reference(inputs, side) for side in SIDES}, max_length=5)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    "recipe", [{}, {"trainer": "sft", "beta": None}, {"loss": "sigmoid_norm"}], ids=["dpo", "sft", "normalised"]
)
def test_batches_in_parts_give_the_weights_of_whole_ones(inputs, tmp_path, recipe):
    # The last batch of a pass is a part of one, too, which micro-batches do not divide: 3 of 19 pairs, as 2 and 1.
    pairs = tmp_path / "pairs.parquet"
    write_table(read_table(inputs / "pairs.parquet", Pairs).head(19), Pairs, pairs)
    whole = run(inputs, tmp_path / "whole", pairs=pairs, **recipe)
    parts = run(inputs, tmp_path / "parts", pairs=pairs, **recipe, machine={"micro_batch": 2})
    assert parts["losses"] == pytest.approx(whole["losses"], abs=1e-4)
    assert difference(tmp_path / "parts", tmp_path / "whole") < 0.05 * difference(tmp_path / "whole", inputs / "base")


def test_gradient_checkpointing_changes_no_weight(inputs, tmp_path):
    run(inputs, tmp_path / "plain", steps=2)
    run(inputs, tmp_path / "saving", steps=2, machine={"gradient_checkpointing": True})
    assert difference(tmp_path / "saving", tmp_path / "plain") < 1e-6


def test_mixed_precision_trains_close_to_full_precision(inputs, tmp_path):
    full, mixed = (run(inputs, tmp_path / str(n), bf16=bool(n)) for n in range(2))
    assert mixed["losses"] == pytest.approx(full["losses"], abs=0.05)
    assert mixed["losses"] != full["losses"]
    assert {tensor.dtype for tensor in weights(tmp_path / "1").values()} == {torch.float32}


def test_a_policy_in_bfloat16_is_trained_in_float32_and_saved_as_it_was(inputs, tmp_path):
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(inputs / "base", dtype=torch.bfloat16).save_pretrained(half / "base")
    AutoTokenizer.from_pretrained(inputs / "base").save_pretrained(half / "base")
    write_manifest(half / "base" / "manifest.json", {})
    store_references(half, inputs)
    (half / "pairs.parquet").write_bytes((inputs / "pairs.parquet").read_bytes())
    small = run(half, tmp_path / "out", learning_rate=1e-5)  # a step that bfloat16 weights would not take
    assert small["losses"][-1] < small["losses"][0]
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert weights(tmp_path / "out").keys() == weights(half / "base").keys()
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", half / "base"))
    assert config == before
    assert config["dtype"] == "bfloat16"


def test_a_training_from_scratch_that_diverges_ends_at_its_step(tmp_path):
    shape = {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "operations": (2, 3), "domains": ["arithmetic"]}
    speed = {"steps": 9, "batch_size": 4, "learning_rate": 1e38, "seed": 0, "authors": [(1.0, {})], "writes": "traces"}
    with pytest.raises(PretrainError, match=r"step \d of .*lower the model's `learning_rate`"):
        pretrain_model(tmp_path / "manifest.json", settings=PretrainSettings(**shape, **speed), threads=1)
    assert not list(tmp_path.iterdir())


def test_a_training_goes_on_from_the_weights_of_its_start(tmp_path):
    shape = {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "operations": (2, 3), "domains": ["arithmetic"]}
    content = {**shape, "batch_size": 16, "learning_rate": 3e-3, "seed": 0, "authors": [(1.0, {})], "writes": "traces"}
    first, second = (tmp_path / name / "manifest.json" for name in ("first", "second"))
    pretrain_model(first, settings=PretrainSettings(**content, steps=60), threads=1)
    pretrain_model(second, first, settings=PretrainSettings(**content, steps=1), threads=1)
    before, after = (read_manifest(file)["losses"] for file in (first, second))
    assert after[0] == pytest.approx(before[-1], rel=0.15)
    assert before[0] > 1.2 * after[0]


DIVERGING = [{}, {"trainer": "kto"}, {"trainer": "sft", "beta": None}, {"lora": {"r": 2, "alpha": 4}}]


@pytest.mark.parametrize("recipe", DIVERGING, ids=["dpo", "kto", "sft", "lora"])
def test_a_training_that_diverges_ends_at_its_step_and_leaves_nothing(inputs, tmp_path, recipe):
    ids = r"\d+" if recipe.get("trainer", "dpo") == "dpo" else r"\d+:(chosen|rejected):0"
    where = rf"step (\d+), at a learning rate of [\d.e+]+, went wrong: .*examples: ({ids}, )*{ids}\. "
    with pytest.raises(TrainingError, match=where) as error:
        run(inputs, tmp_path / "out", **recipe, learning_rate=1e30, schedule="constant", steps=6, machine={"checkpoint_steps": 1})
    step = int(re.search(r"step (\d+)", str(error.value))[1])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".trainer"]
    assert all(int(path.name.split("-")[1]) < step for path in tmp_path.glob("out/.trainer/checkpoint-*"))
    assert not list(tmp_path.glob("out/.trainer/*/*.safetensors")) or step > 1


def test_where_several_processes_train_the_step_that_goes_wrong_is_named_too(inputs, sixteen, tmp_path):
    told = r"step \d, at a learning rate of .* went wrong: .* Its examples: (\d+, ){7}\d+\. .*two\.log"
    with pytest.raises(TrainingError, match=told):
        run(inputs, tmp_path / "two", pairs=sixteen, learning_rate=1e30, machine={"gpus": 2})
    assert not (tmp_path / "two" / "manifest.json").exists()


def test_a_weight_that_the_policys_dtype_can_not_hold_is_not_saved(tmp_path):
    with pytest.raises(TrainingError, match=r"weight w is not finite in torch\.float16"):
        fit.save_model(None, {"w": torch.tensor([1.0, 1e5]).half()}, tmp_path)


@pytest.mark.parametrize("recipe", [{}, {"lora": {"r": 2, "alpha": 4}}], ids=["whole", "lora"])
def test_settings_of_generation_that_contradict_themselves_come_out_as_they_came_in(inputs, tmp_path, recipe):
    base = shutil.copytree(inputs / "base", tmp_path / "own" / "base")
    odd = json.dumps({"do_sample": False, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [3, 4], "x": "kept"})
    (base / "generation_config.json").write_text(odd)
    write_manifest(base / "manifest.json", {})
    files = {"references": {side: reference(inputs, side) for side in SIDES}, "pairs": inputs / "pairs.parquet"}
    run(tmp_path / "own", tmp_path / "out", **files, **recipe, steps=2, machine={"checkpoint_steps": 1})
    assert (tmp_path / "out" / "generation_config.json").read_text() == odd


def test_a_policy_without_an_end_token_is_refused_before_it_is_loaded(inputs, tmp_path, monkeypatch):
    base = shutil.copytree(inputs / "base", tmp_path / "own" / "base")
    words = json.loads((base / "tokenizer_config.json").read_text())
    del words["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(words))
    write_manifest(base / "manifest.json", {})
    monkeypatch.setattr(fit, "load_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(CheckpointError, match="`eos_token` and has none"):
        run(tmp_path / "own", tmp_path / "out", {side: reference(inputs, side) for side in SIDES}, inputs / "pairs.parquet")


def test_out_of_memory_names_the_methods_settings(inputs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(fit, "make_trainer", full)
    with pytest.raises(OutOfMemoryError, match=r"run\.methods\.m\.micro_batch \(now 8\).*gradient_checkpointing.*max_length"):
        run(inputs, tmp_path / "out")


@pytest.mark.parametrize("trainer", ["kto", "sft"])
def test_other_trainers(inputs, tmp_path, trainer):
    manifest = run(inputs, tmp_path, trainer=trainer, beta=None if trainer == "sft" else 0.5)
    assert len(manifest["losses"]) == manifest["n_steps"] == 4
    assert manifest["n_pairs"] == 20
    assert difference(tmp_path, inputs / "base") > 1e-4


def test_adapter_is_merged_into_a_plain_checkpoint(inputs, tmp_path):
    manifest = run(inputs, tmp_path, lora={"r": 2, "alpha": 4})
    assert manifest["losses"][0] == pytest.approx(LN2, abs=1e-4)
    assert weights(tmp_path).keys() == weights(inputs / "base").keys()
    assert difference(tmp_path, inputs / "base") > 1e-5


@pytest.fixture
def killed(inputs, tmp_path, monkeypatch):
    """The folder of a training that was killed in its third step."""

    def kill(self, args, state, *_, **__):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fit.Progress, "on_log", kill)
        run(inputs, tmp_path / "killed")
    assert list(tmp_path.glob("killed/.trainer/checkpoint-*"))
    return tmp_path / "killed"


@pytest.mark.parametrize("changes", [{"learning_rate": 2e-3}, {"machine": {"micro_batch": 4}}], ids=["recipe", "run"])
def test_checkpoints_of_other_settings_are_not_resumed(inputs, killed, tmp_path, caplog, changes):
    caplog.set_level("INFO")
    manifest = run(inputs, killed, **changes)
    assert "going on from" not in caplog.text
    assert len(manifest["losses"]) == 4
    assert manifest["files"] == run(inputs, tmp_path / "fresh", **changes)["files"]


def test_a_killed_run_goes_on_though_it_saves_more_rarely(inputs, killed, tmp_path, caplog):
    caplog.set_level("INFO")
    manifest = run(inputs, killed, machine={"checkpoint_steps": 3, "gradient_checkpointing": True})
    assert "going on from" in caplog.text
    assert manifest["losses"] == pytest.approx(run(inputs, tmp_path / "fresh")["losses"], abs=1e-5)
    assert difference(killed, tmp_path / "fresh") < 1e-6


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(inputs, killed, tmp_path, caplog):
    caplog.set_level("INFO")
    manifest = run(inputs, killed)
    assert "going on from" in caplog.text
    assert manifest["files"] == run(inputs, tmp_path / "fresh")["files"]
    assert not list(killed.glob(".trainer"))


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_checkpoint_that_is_damaged_is_left_aside(killed, caplog, name):
    work = killed / ".trainer"
    fit.set_aside_damaged(work)
    (whole,) = work.glob("checkpoint-*")
    shutil.copytree(whole, work / "checkpoint-1")  # an earlier one
    (whole / name).write_bytes((whole / name).read_bytes()[:-20])
    fit.set_aside_damaged(work)
    assert (work / f"damaged-{whole.name}").is_dir()
    assert fit._last_checkpoint(work) == str(work / "checkpoint-1")
    assert f"{whole} is left aside: {whole}/{name} " in caplog.text


def test_a_run_whose_only_checkpoint_is_damaged_starts_anew(inputs, killed, tmp_path, caplog):
    (file,) = killed.glob(".trainer/checkpoint-*/optimizer.pt")
    file.write_bytes(file.read_bytes()[:1000])
    caplog.set_level("INFO")
    manifest = run(inputs, killed)
    assert "left aside" in caplog.text
    assert "going on from" not in caplog.text
    assert manifest["files"] == run(inputs, tmp_path / "fresh")["files"]


def test_a_run_that_was_refused_for_its_references_takes_new_ones(inputs, tmp_path):
    wrong = read_table(reference(inputs, "rejected"), References).with_columns(logp=pl.col("logp") - 3)
    write_table(wrong, References, tmp_path / "wrong.parquet")
    with pytest.raises(TrainingError, match=r"not 0\.6931"):
        run(inputs, tmp_path / "out", {"chosen": reference(inputs, "chosen"), "rejected": tmp_path / "wrong.parquet"})
    assert not list(tmp_path.glob("out/.trainer/checkpoint-*"))  # it ended at the first step
    assert run(inputs, tmp_path / "out")["losses"][0] == pytest.approx(LN2, abs=1e-4)


def test_the_manifest_tells_content_and_run_apart(inputs, tmp_path):
    manifest = run(inputs, tmp_path, machine={"micro_batch": 4})
    assert manifest["cell"] == asdict(CELL)
    assert manifest["recipe"] == Recipe.model_validate(RECIPE).model_dump()
    assert manifest["run"] == TrainingRun(checkpoint_steps=2, micro_batch=4).model_dump()
    assert {"torch", "transformers", "trl", "python"} <= manifest["versions"].keys()
    assert manifest["base"] == read_manifest(inputs / "base" / "manifest.json")["files"]


def parts(text):
    """``text`` as a generator's trace, the reasoning first."""
    return f"<think>\n{text} because\n</think>\n\nso {text}"


@pytest.fixture(scope="module", params=["", "<think>\n"], ids=["plain", "open mark"])
def reasoner(request, tmp_path_factory):
    """As ``inputs``, for a policy whose chat template drops the reasoning of assistant turns."""
    folder = tmp_path_factory.mktemp("reasoner")
    build.checkpoint(folder / "base", build.reasoning_tokenizer(request.param))
    write_manifest(folder / "base" / "manifest.json", {})
    texts = {side: [parts(f"{side} {n}") for n in range(8)] for side in ("chosen", "rejected")}
    return made(folder, [f"What is {n}?" for n in range(8)], texts)


@pytest.mark.parametrize("trainer", ["dpo", "kto", "sft"])
def test_reasoning_is_trained_on_though_the_template_drops_it(reasoner, tmp_path, monkeypatch, trainer):
    seen = []
    original = fit.make_trainer
    monkeypatch.setattr(fit, "make_trainer", lambda *words, **names: seen.append(original(*words, **names)) or seen[0])
    manifest = run(reasoner, tmp_path / "out", trainer=trainer, beta=None if trainer == "sft" else 0.5, steps=1)
    if trainer == "dpo":  # references were computed from the same tokens
        assert manifest["losses"][0] == pytest.approx(LN2, abs=1e-4)
    ((trainer_, *_),) = seen
    tokenizer = AutoTokenizer.from_pretrained(reasoner / "base")
    for row in trainer_.train_dataset:
        if trainer == "dpo":
            texts = [tokenizer.decode(row["prompt_ids"] + row[f"{side}_ids"]) for side in ("chosen", "rejected")]
        else:
            ids = row["input_ids"] if trainer == "sft" else row["prompt_ids"] + row["completion_ids"]
            texts = [tokenizer.decode(ids)]
        for text in texts:
            prompt, _, trace = text.partition("<|assistant|>")
            side, number = trace.removeprefix("<think>\n").split()[:2]
            assert prompt == f"<|begin|><|user|>What is {number}?"
            assert trace == f"{parts(f'{side} {number}')}<|end|>"
    # The checkpoint has the policy's own template.
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


@pytest.fixture
def sixteen(inputs, tmp_path):
    """Pairs of whole batches: several processes leave out what does not fill one."""
    write_table(read_table(inputs / "pairs.parquet", Pairs).head(16), Pairs, tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_two_processes_train_like_one_and_go_on_after_a_kill(inputs, sixteen, tmp_path):
    recipe = {"steps": 30, "learning_rate": 1e-4}
    one = run(inputs, tmp_path / "one", pairs=sixteen, **recipe)
    output = tmp_path / "two"

    def kill():
        eventually(lambda: list(output.glob(".trainer/checkpoint-*/manifest.json")), patience=100)
        mark = str(output / ".trainer/training.json")
        workers = [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])]
        os.kill(max(workers, key=lambda process: process.create_time()).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError, match=rf"accelerate launch ended with exit code .* {tmp_path}/two\.log"):
        run(inputs, output, pairs=sixteen, **recipe, machine={"gpus": 2})
    killer.join()
    assert not (output / "manifest.json").exists()
    two = run(inputs, output, pairs=sixteen, **recipe, machine={"gpus": 2})
    assert "going on from" in (tmp_path / "two.log").read_text()
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert difference(output, tmp_path / "one") < 0.05 * difference(tmp_path / "one", inputs / "base")
    assert two["n_tokens"] == one["n_tokens"]


# accelerate shards over GPUs only. This makes it take the CPU for one, in the processes of a launch.
SHARD_ON_CPU = """
import json
import os
if "LOCAL_RANK" in os.environ:
    import torch
    from accelerate import state
    from accelerate.utils import DistributedType
    state.PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    state.PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    torch.distributed.init_process_group("gloo")
    from transformers import TrainerCallback, Trainer
    class Tell(TrainerCallback):
        def on_train_end(self, *_, model, **__):
            print("sharded as", type(model).__name__, {type(weight).__name__ for weight in model.parameters()}, flush=True)
    original = Trainer.train
    def train(self, *words, **options):
        self.add_callback(Tell())
        return original(self, *words, **options)
    Trainer.train = train
"""


def test_sharded_training_gives_the_weights_of_training_in_one_process(inputs, sixteen, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(SHARD_ON_CPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    recipe = {"steps": 3, "learning_rate": 1e-4}
    one = run(inputs, tmp_path / "one", pairs=sixteen, **recipe)
    two = run(inputs, tmp_path / "two", pairs=sixteen, **recipe, machine={"gpus": 2, "sharding": "fsdp", "micro_batch": 2})
    assert "sharded as FSDPQwen3ForCausalLM {'DTensor'}" in (tmp_path / "two.log").read_text()
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert weights(tmp_path / "two").keys() == weights(tmp_path / "one").keys()
    assert difference(tmp_path / "two", tmp_path / "one") < 0.05 * difference(tmp_path / "one", inputs / "base")


@pytest.mark.parametrize(
    ("trainer", "examples", "steps"), [("dpo", 20, 3), ("dpo", 20, 6), ("kto", 40, 5), ("kto", 40, 10), ("sft", 20, 3)]
)
def test_completion_tokens_are_those_that_whole_passes_read(inputs, tmp_path, trainer, examples, steps):
    manifest = run(inputs, tmp_path, trainer=trainer, beta=None if trainer == "sft" else 0.5, steps=steps, max_length=CUT)
    tokenizer, prompts = make_tokenizer(), read_table(inputs / "pairs.parquet", Pairs)["prompt"]
    n_prompt_tokens = sum(len(tokenizer(f"<user>{prompt}<assistant>")["input_ids"]) for prompt in prompts)
    passes, n_sides = steps // -(-examples // RECIPE["batch_size"]), 1 if trainer == "sft" else 2
    # TRL counts the tokens of prompts and completions that its batches hold.
    assert manifest["n_completion_tokens"] == manifest["n_tokens"] - passes * n_sides * n_prompt_tokens > 0


def test_several_processes_leave_out_what_does_not_fill_a_pass_of_all(inputs, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(SHARD_ON_CPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    machine = {"gpus": 2, "sharding": "fsdp", "micro_batch": 4}
    two = run(inputs, tmp_path / "two", steps=4, machine=machine)  # 20 pairs: 16 in two steps, and again
    one = run(inputs, tmp_path / "one", steps=3)  # 20 in three
    assert two["n_completion_tokens"] == pytest.approx(one["n_completion_tokens"] * 32 / 20, abs=1)
    assert two["metrics"]["epoch"] == 2


def test_completion_tokens_of_a_part_of_a_pass_are_its_share(inputs, tmp_path):
    one, more = (run(inputs, tmp_path / str(steps), steps=steps)["n_completion_tokens"] for steps in (3, 4))
    assert more == round(one * 28 / 20)
