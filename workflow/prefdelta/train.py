"""Preference tuning with TRL: DPO, KTO, or SFT on the chosen side."""

import hashlib
import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from prefdelta.atomic import write_text
from prefdelta.errors import PrefdeltaError
from prefdelta.manifest import read_manifest, write_manifest
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
    *,
    recipe: dict[str, Any],
    n_steps: int,
    cell: dict[str, str],
    seed: int,
    threads: int,
) -> None:
    """Trains the checkpoint of ``base`` (its manifest) on ``pairs`` and writes the folder of ``output`` (its manifest, last).

    ``references`` (sides ``chosen`` and ``rejected``: `References` tables) are joined to DPO's pairs. A run that was killed
    goes on from its last checkpoint if pairs, base, recipe and seed are the same. Raises TrainingError where DPO's first loss is
    not ln 2, that is, where policy and reference differ before the first step.
    """
    torch.set_num_threads(threads)
    method = Recipe.model_validate(recipe)
    frame = read_table(pairs, Pairs)
    base_manifest = read_manifest(base)
    output = Path(output)
    work = output.parent / ".trainer"
    _clear_unless_resumable(output, work, [pairs, base], [recipe, n_steps, seed])

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(Path(base).parent, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(Path(base).parent, dtype="auto")
    trainer = _trainer(model, tokenizer, frame, references, method, n_steps, seed, work)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    last = _last_checkpoint(work)
    if last:
        log.info("going on from %s", last)
    trainer.train(resume_from_checkpoint=last)

    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [round(entry["loss"], 6) for entry in history]
    if method.trainer == "dpo" and not math.isclose(losses[0], math.log(2), abs_tol=1e-3):
        raise TrainingError(
            f"DPO's loss before the first step is {losses[0]}, not ln 2 = {math.log(2):.4f}: the reference log-probabilities "
            f"({', '.join(map(str, references.values()))}) are not those of {base}. Delete them and run again."
        )
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    tuned = tuned.merge_and_unload() if method.lora else tuned
    tuned.save_pretrained(output.parent)
    tokenizer.save_pretrained(output.parent)
    write_text(CARD.format(**cell, n_steps=n_steps, n_pairs=len(frame)), output.parent / "README.md")
    shutil.rmtree(work)
    write_manifest(
        output,
        {
            "cell": cell,
            "recipe": method.model_dump(),
            "base": base_manifest["files"],
            "n_steps": n_steps,
            "n_pairs": len(frame),
            "n_tokens": int(history[-1]["num_tokens"]),
            "mean_delta": float(frame["delta_overall"].mean()),  # type: ignore[arg-type]
            "losses": losses,
            "metrics": {key: value for key, value in history[-1].items() if isinstance(value, float)},
        },
    )


def _trainer(
    model: Any,
    tokenizer: Any,
    frame: pl.DataFrame,
    references: dict[str, Path | str],
    recipe: Recipe,
    n_steps: int,
    seed: int,
    work: Path,
) -> Any:
    arguments: dict[str, Any] = {
        "output_dir": str(work),
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.batch_size,
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
        "activation_checkpointing": False,
        "bf16": False,
        "dataloader_pin_memory": False,
    }
    adapter = None
    if recipe.lora:
        from peft import LoraConfig

        lora = recipe.lora
        adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    common = {"model": model, "processing_class": tokenizer, "peft_config": adapter}

    def turns(role: str, column: str) -> list[list[dict[str, str]]]:
        return [[{"role": role, "content": text}] for text in frame[column]]

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
    stored = _stored_references(frame, references, recipe.max_length)
    data = Dataset.from_dict(columns | stored)
    trainer = StoredReferenceDPOTrainer if stored else DPOTrainer
    return trainer(**common, args=DPOConfig(**arguments, precompute_ref_log_probs=bool(stored)), train_dataset=data)


def _stored_references(frame: pl.DataFrame, references: dict[str, Path | str], max_length: int) -> dict[str, list[float]]:
    """Reference columns for DPO; none where the recipe truncates some trace, for the store holds whole traces only."""
    tables = pl.concat([read_table(path, References) for path in dict.fromkeys(references.values())])
    columns = {}
    for side in ("chosen", "rejected"):
        joined = frame.select(trace_id=f"{side}_trace_id").join(tables, on="trace_id", how="left", maintain_order="left")
        if joined["logp"].null_count():
            raise TrainingError(f"{joined['logp'].null_count()} {side} traces have no reference in {references[side]}")
        if ((joined["n_prompt_tokens"] + joined["n_tokens"]) > max_length).any():
            log.info("some %s traces exceed max_length %d: TRL computes the reference itself", side, max_length)
            return {}
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
