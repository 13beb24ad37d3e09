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

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from prefdelta.checkpoints.manifest import checked_folder, read_manifest, write_manifest
from prefdelta.run.atomic import write_text
from prefdelta.run.processes import free_port, running
from prefdelta.study.recipe import Gates, Recipe
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Pairs
from prefdelta.train.gates import check_gates
from prefdelta.train.trainers import TrainingError, make_trainer

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


# Of a policy that equals its reference: -ln sigmoid(0), and 1 - sigmoid(0).
FIRST_LOSS = {"dpo": math.log(2), "kto": 0.5}


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
    ratings: dict[str, Path | str],
    references: dict[str, Path | str],
    output: Path | str,
    log_file: Path | str,
    *,
    recipe: dict[str, Any],
    n_steps: int,
    cell: dict[str, str],
    chat: dict[str, Any],
    gates: Gates,
    seed: int,
    threads: int,
) -> None:
    """Trains the checkpoint of ``base`` (its manifest) on ``pairs`` and writes the folder of ``output`` (its manifest, last).

    ``ratings`` and ``references`` are tables of the sides ``chosen`` and ``rejected``; references are joined to the pairs of DPO
    and KTO. A recipe for several GPUs runs under `accelerate launch`. A run that was killed goes on from its last checkpoint if
    pairs, base, recipe and seed are the same. Raises GateError where `check_gates` with the thresholds ``gates`` does, before a
    model is loaded. Raises TrainingError where the first loss is not `FIRST_LOSS` (for DPO ln 2), that is, where policy and
    reference differ before the first step, and where a prompt alone fills the length limit.
    """
    method = Recipe.model_validate(recipe)
    folder = checked_folder(base)
    check_gates(pairs, ratings, references, folder, recipe=method, cell=cell, chat=chat, gates=gates)
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
    expected = FIRST_LOSS.get(method.trainer)
    if expected and not math.isclose(losses[0], expected, abs_tol=0.2 if method.bf16 else 1e-4):
        raise TrainingError(
            f"the loss before {method.trainer}'s first step is {losses[0]}, not {expected:.4f}: the reference log-probabilities "
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
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "prefdelta.train.policy", str(job)]
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
    dtype = AutoConfig.from_pretrained(folder).dtype or torch.float32
    # Steps of 1e-8 are lost on bfloat16 weights, so those that are trained stay in float32.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype if method.lora else torch.float32)
    settings = {key: content[key] for key in ("base", "chat", "n_steps", "seed")}
    trainer, counts = make_trainer(model, tokenizer, frame, content["references"], method, **settings, work=work)
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
            **counts,
            "losses": [round(entry["loss"], 6) for entry in history],
            "metrics": {key: value for key, value in history[-1].items() if isinstance(value, float)},
        }
        write_text(json.dumps(outcome), work / "outcome.json")


def _merge(folder: Path, work: Path) -> None:
    """Merges the adapter into the base checkpoint."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    PeftModel.from_pretrained(base, work / "adapter").merge_and_unload().save_pretrained(work / "model")


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
