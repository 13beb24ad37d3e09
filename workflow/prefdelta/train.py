"""Preference tuning with TRL: DPO, KTO, or SFT on the chosen side."""

import hashlib
import json
import logging
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from prefdelta.atomic import write_text
from prefdelta.chat import render, target
from prefdelta.endpoint import free_port, running
from prefdelta.errors import PrefdeltaError
from prefdelta.manifest import checked_folder, read_manifest, write_manifest
from prefdelta.recipe import Recipe
from prefdelta.tables import Pairs, References, read_table

log = logging.getLogger(__name__)

CARD = """\
---
library_name: transformers
tags: [prefdelta, {method}]
---
# {policy}, {method} on {chosen} over {rejected} ({selection}, seed {seed})

Study `{study}`: policy `{policy}` trained with `{method}` for {n_steps} steps on {n_pairs} preference pairs: chosen by
`{chosen}`, rejected by `{rejected}`, selection `{selection}` on the ratings of judge `{judge}`. `manifest.json` holds the
recipe, the loss curve, package versions and a hash of every file. Load it with `AutoModelForCausalLM.from_pretrained`.
"""


class TrainingError(PrefdeltaError):
    """Training can't start or has gone wrong; the message says where."""


class StoredReferenceDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO whose data set already has ``ref_chosen_logps`` and ``ref_rejected_logps``, so no reference model runs."""

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


class Progress(TrainerCallback):  # type: ignore[misc]
    """Writes a line with the loss and the time left to the log about every five seconds."""

    def __init__(self) -> None:
        self.started = self.told = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        now = time.monotonic()
        if "loss" in logs and (now - self.told > 5 or state.global_step == state.max_steps):
            self.told = now
            left = (now - self.started) / state.global_step * (state.max_steps - state.global_step)
            log.info("step %d of %d, loss %.4f, about %.0f s left", state.global_step, state.max_steps, logs["loss"], left)


def train_policy(
    pairs: Path | str,
    base: Path | str,
    references: dict[str, Path | str],
    output: Path | str,
    log_file: Path | str,
    *,
    recipe: dict[str, Any],
    n_steps: int,
    cell: dict[str, str],
    chat: dict[str, Any],
    seed: int,
    threads: int,
) -> None:
    """Trains the checkpoint of ``base`` (its manifest) on ``pairs`` and writes the folder of ``output`` (its manifest, last).

    ``references`` (sides ``chosen`` and ``rejected``: `References` tables) are joined to DPO's pairs. A recipe for several GPUs
    runs under `accelerate launch`. A run that was killed goes on from its last checkpoint if pairs, base, recipe and seed are
    the same. Raises TrainingError where DPO's first loss is not ln 2, that is, where policy and reference differ before the first
    step, and where a prompt alone fills the length limit.
    """
    method = Recipe.model_validate(recipe)
    folder = checked_folder(base)
    output = Path(output)
    work = output.parent / ".trainer"
    _clear_unless_resumable(output, work, [pairs, base], [recipe, n_steps, seed, chat])
    job = {
        "pairs": pairs,
        "base": folder,
        "references": references,
        "recipe": recipe,
        "n_steps": n_steps,
        "chat": chat,
        "seed": seed,
    }
    write_text(json.dumps({**job, "work": work, "threads": threads}, default=str), work / "job.json")
    if method.processes == 1:
        _fit(work / "job.json")
    else:
        _launch(work / "job.json", method, log_file)

    outcome = json.loads((work / "outcome.json").read_text(encoding="utf-8"))
    losses = outcome["losses"]
    # Bfloat16 rounds the log-probability of a long trace by a nat or more; references of another model are off by far more.
    if method.trainer == "dpo" and not math.isclose(losses[0], math.log(2), abs_tol=0.2 if method.bf16 else 1e-3):
        raise TrainingError(
            f"DPO's loss before the first step is {losses[0]}, not ln 2 = {math.log(2):.4f}: the reference log-probabilities "
            f"({', '.join(map(str, references.values()))}) are not those of {base}. Delete them and run again."
        )
    if method.lora:
        _merge(folder, work)
    for file in (work / "model").iterdir():
        file.replace(output.parent / file.name)
    AutoTokenizer.from_pretrained(folder).save_pretrained(output.parent)
    write_text(CARD.format(**cell, n_steps=n_steps, n_pairs=outcome["n_pairs"]), output.parent / "README.md")
    shutil.rmtree(work)
    write_manifest(
        output,
        {
            "cell": cell,
            "recipe": method.model_dump(),
            "base": read_manifest(base)["files"],
            "n_steps": n_steps,
            **outcome,
        },
    )


def _launch(job: Path, recipe: Recipe, log_file: Path | str) -> None:
    """Runs `_fit` in a process for each GPU. On a machine without any, the processes share the CPU."""
    flags = [
        "--num_processes",
        str(recipe.processes),
        "--num_machines",
        "1",
        "--mixed_precision",
        "bf16" if recipe.bf16 else "no",
    ]
    # --multi_gpu means several processes, of a CPU too (with --cpu there would be one); _trainer says which device.
    flags += ["--multi_gpu", "--main_process_port", str(free_port()), "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "prefdelta.train", str(job)]
    with running(command, log_file) as process:
        if process.wait():
            raise TrainingError(f"accelerate launch ended with exit code {process.returncode}: see {log_file}")


def _fit(job: Path) -> None:
    """The training itself, in each process: leaves ``model/`` (or ``adapter/``) and ``outcome.json`` beside ``job``."""
    content = json.loads(job.read_text(encoding="utf-8"))
    torch.set_num_threads(content["threads"])
    method, work, folder = Recipe.model_validate(content["recipe"]), Path(content["work"]), Path(content["base"])
    set_seed(content["seed"])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    frame = read_table(content["pairs"], Pairs)
    texts, n_truncated = _texts(tokenizer, frame, content["chat"], method.max_length)
    # The texts are rendered already, and the template of a reasoning model would drop their reasoning.
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    dtype = AutoConfig.from_pretrained(folder).dtype or torch.float32
    # Steps of 1e-8 are lost on bfloat16 weights, so those that are trained stay in float32.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype if method.lora else torch.float32)
    trainer = _trainer(model, tokenizer, frame, texts, content["references"], method, content["n_steps"], content["seed"], work)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    last = _last_checkpoint(work)
    if last:
        log.info("going on from %s", last)
        told = json.loads(Path(last, "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        trainer._total_train_tokens = int(told[-1]["num_tokens"])  # which TRL would count from zero
    trainer.train(resume_from_checkpoint=last)

    if method.lora:
        trainer.save_model(str(work / "adapter"))
    else:
        state = trainer.accelerator.get_state_dict(trainer.model)  # gathered from all GPUs; empty but in the main process
        if trainer.is_world_process_zero():
            tuned = trainer.accelerator.unwrap_model(trainer.model)
            # A gathered or converted copy of a tied weight is a weight of its own to save_pretrained.
            kept = {name: weight.to(dtype) for name, weight in state.items() if name not in tuned.all_tied_weights_keys}
            tuned.save_pretrained(work / "model", state_dict=kept)
            AutoConfig.from_pretrained(folder).save_pretrained(work / "model")  # training has changed its dtype and use_cache
    if trainer.is_world_process_zero():
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        outcome = {
            "n_pairs": len(frame),
            "mean_delta": float(frame["delta_overall"].mean()),  # type: ignore[arg-type]
            "n_tokens": int(history[-1]["num_tokens"]),
            "n_truncated": n_truncated,
            "losses": [round(entry["loss"], 6) for entry in history],
            "metrics": {key: value for key, value in history[-1].items() if isinstance(value, float)},
        }
        write_text(json.dumps(outcome), work / "outcome.json")


def _merge(folder: Path, work: Path) -> None:
    """Merges the adapter into the base checkpoint."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    PeftModel.from_pretrained(base, work / "adapter").merge_and_unload().save_pretrained(work / "model")


def _texts(
    tokenizer: Any, frame: pl.DataFrame, chat: dict[str, Any], max_length: int
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Rendered ``prompt``, ``chosen`` and ``rejected`` of each pair, and how many of each side the length limit cuts.

    Raises TrainingError where a prompt alone fills the limit: TRL would leave its pair out, and arms would differ in pairs.
    """
    prompts = [render(tokenizer, prompt, chat) for prompt in frame["prompt"]]
    texts = {"prompt": prompts}
    n_prompt_tokens = [len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]]
    too_long = [prompt_id for prompt_id, n in zip(frame["prompt_id"], n_prompt_tokens, strict=True) if n >= max_length]
    if too_long:
        raise TrainingError(f"{len(too_long)} prompts fill max_length {max_length} alone, such as {too_long[0]}: raise it")
    n_truncated = {}
    for side in ("chosen", "rejected"):
        texts[side] = [target(tokenizer, prompt, text) for prompt, text in zip(prompts, frame[side], strict=True)]
        wholes = [prompt + text for prompt, text in zip(prompts, texts[side], strict=True)]
        n_truncated[side] = sum(len(ids) > max_length for ids in tokenizer(wholes, add_special_tokens=False)["input_ids"])
        log.info("%d of %d %s traces are cut at %d tokens", n_truncated[side], len(frame), side, max_length)
    return texts, n_truncated


FSDP = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "cpu_ram_efficient_loading": False,
    "state_dict_type": "FULL_STATE_DICT",
}
DEEPSPEED = {  # ZeRO-3; "auto": as the trainer's arguments say
    "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def _trainer(
    model: Any,
    tokenizer: Any,
    frame: pl.DataFrame,
    texts: dict[str, list[str]],
    references: dict[str, Path | str],
    recipe: Recipe,
    n_steps: int,
    seed: int,
    work: Path,
) -> Any:
    arguments: dict[str, Any] = {
        "output_dir": str(work),
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.per_device,
        "gradient_accumulation_steps": recipe.batch_size // (recipe.per_device * recipe.processes),
        "max_steps": n_steps,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_steps,
        "max_length": recipe.max_length,
        "seed": seed,
        "save_steps": recipe.checkpoint_steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "bf16": recipe.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    match recipe.sharding:
        case "fsdp":
            arguments |= {"fsdp": True, "fsdp_config": FSDP}
        case "deepspeed":
            arguments |= {"deepspeed": DEEPSPEED}
    adapter = None
    if recipe.lora:
        from peft import LoraConfig

        lora = recipe.lora
        adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    common = {"model": model, "processing_class": tokenizer, "peft_config": adapter}

    def turns(role: str, column: str) -> list[list[dict[str, str]]]:
        return [[{"role": role, "content": text}] for text in texts[column]]

    prompts, chosen, rejected = turns("user", "prompt"), turns("assistant", "chosen"), turns("assistant", "rejected")
    if recipe.trainer == "sft":
        data = Dataset.from_dict({"prompt": prompts, "completion": chosen})
        return SFTTrainer(**common, args=SFTConfig(**arguments), train_dataset=data)
    arguments["beta"] = recipe.beta
    if recipe.trainer == "kto":
        labels = [True] * len(chosen) + [False] * len(rejected)
        data = Dataset.from_dict({"prompt": prompts * 2, "completion": chosen + rejected, "label": labels})
        # KTO reads its data in order, since its KL term pairs neighbours: so the order is shuffled here.
        options = {"train_sampling_strategy": "sequential", "dataloader_drop_last": True}
        return KTOTrainer(**common, args=KTOConfig(**arguments, **options), train_dataset=data.shuffle(seed=seed))
    columns: dict[str, Any] = {"prompt": prompts, "chosen": chosen, "rejected": rejected}
    data = Dataset.from_dict(columns | _stored_references(frame, references, recipe.max_length))
    loss = ["sigmoid_norm"] if recipe.length_normalised else ["sigmoid"]
    settings = DPOConfig(**arguments, precompute_ref_log_probs=True, loss_type=loss)
    return StoredReferenceDPOTrainer(**common, args=settings, train_dataset=data)


def _stored_references(frame: pl.DataFrame, references: dict[str, Path | str], max_length: int) -> dict[str, list[float]]:
    """Reference columns for DPO, of traces cut to ``max_length``."""
    tables = pl.concat([read_table(path, References) for path in dict.fromkeys(references.values())])
    stored = tables.filter(max_length=max_length)
    columns = {}
    for side in ("chosen", "rejected"):
        joined = frame.select(trace_id=f"{side}_trace_id").join(stored, on="trace_id", how="left", maintain_order="left")
        if joined["logp"].null_count():
            missing = joined["logp"].null_count()
            raise TrainingError(f"{missing} {side} traces have no reference at max_length {max_length} in {references[side]}")
        columns[f"ref_{side}_logps"] = joined["logp"].to_list()
    return columns


def _clear_unless_resumable(output: Path, work: Path, files: list[Path | str], settings: list[Any]) -> None:
    """Empties the folder of ``output``, keeping ``work`` if it belongs to the same inputs and settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in files:
        digest.update(Path(file).read_bytes())
    mark = work / "fingerprint"
    same = mark.exists() and mark.read_text() == digest.hexdigest()
    for path in output.parent.iterdir() if output.parent.exists() else []:
        if path.is_dir() and not (path == work and same):
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    write_text(digest.hexdigest(), mark)


def _last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint of a killed run: trainer_state.json is written last."""
    found = [path for path in work.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _fit(Path(sys.argv[1]))
