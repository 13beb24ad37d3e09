"""Preference tuning with TRL: DPO, KTO, or SFT on the chosen side."""

import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from prefdelta.checkpoints.load import load_config, load_model, load_tokenizer
from prefdelta.checkpoints.manifest import checked_folder, read_manifest, write_manifest
from prefdelta.run.atomic import write_text
from prefdelta.run.processes import free_port, running
from prefdelta.study.lattice import Side
from prefdelta.train.fit import ERROR, Outcome, fit, save_model, set_aside_damaged
from prefdelta.train.gates import check_gates
from prefdelta.train.settings import PolicyRun, PolicySettings, Training
from prefdelta.train.watched import TrainingError

CARD = """\
---
library_name: transformers
tags: [prefdelta, {method}]
---
# {policy}, {method} on {chosen} over {rejected} ({selection}, seed {seed})

Study `{study}`: policy `{policy}` trained with `{method}` for {n_steps} steps on {n_pairs} preference pairs: chosen by
`{chosen}`, rejected by `{rejected}`, selection `{selection}` on the ratings of judge `{judge}`. `manifest.json` holds the
recipe, the loss curve, library versions and a hash of every file. Load it with `AutoModelForCausalLM.from_pretrained`.
"""


def train_policy(
    pairs: Path,
    base: Path,
    ratings: dict[Side, Path],
    references: dict[Side, Path],
    manifest: Path,
    *,
    settings: PolicySettings,
    run: PolicyRun,
    threads: int,
    log_file: Path,
) -> None:
    """Trains the checkpoint of ``base`` (its manifest) on ``pairs`` and writes the folder of ``manifest``, and that last.

    ``ratings`` and ``references`` are by side; references are joined to the pairs of DPO and KTO. On several GPUs it runs under
    `accelerate launch`. A run that was killed goes on from its last checkpoint if pairs, base and settings are the same. Raises
    GateError where `check_gates` does, before a model is loaded. Raises CheckpointError where the policy can't be used, and
    TrainingError and OutOfMemoryError as `fit` does, and where a prompt alone fills the length limit. Whatever of the policy is
    saved besides weights is saved once before the first step, so that it can't fail after the last.
    """
    recipe, folder, work = settings.recipe, checked_folder(base), manifest.parent / ".trainer"
    check_gates(pairs, ratings, references, folder, settings, run.gates)
    training = Training(pairs=pairs, base=folder, references=references, settings=settings, run=run.training, threads=threads)
    _clear_unless_resumable(manifest.parent, work, _fingerprint(training, base))
    set_aside_damaged(work)
    _save_words(folder, work / "model")
    write_text(training.model_dump_json(), work / "training.json")
    if run.training.processes == 1:
        fit(work / "training.json")
    else:
        _launch(work / "training.json", training, log_file)

    outcome = Outcome.model_validate_json((work / "outcome.json").read_text(encoding="utf-8"))
    if recipe.lora:
        _merge(folder, work)
    _save_words(folder, work / "model")  # training has changed dtype and use_cache, and the settings of generation
    for file in (work / "model").iterdir():
        file.replace(manifest.parent / file.name)
    cell = asdict(settings.cell)
    card = CARD.format(**cell, study=settings.study, n_steps=settings.n_steps, n_pairs=outcome.n_pairs)
    write_text(card, manifest.parent / "README.md")
    shutil.rmtree(work)
    write_manifest(
        manifest,
        {
            "study": settings.study,
            "cell": cell,
            "recipe": recipe.model_dump(),
            "run": run.training.model_dump(),
            "base": read_manifest(base)["files"],
            "n_steps": settings.n_steps,
            **outcome.model_dump(),
        },
    )


def _save_words(folder: Path, made: Path) -> None:
    """Saves all of a checkpoint but its weights as it is in ``folder``."""
    load_tokenizer(folder).save_pretrained(made)
    load_config(folder).save_pretrained(made)
    (made / GENERATION_CONFIG_NAME).unlink(missing_ok=True)
    if (folder / GENERATION_CONFIG_NAME).exists():
        # As it is: of many public checkpoints, settings do not fit each other, and transformers refuses to write them.
        shutil.copyfile(folder / GENERATION_CONFIG_NAME, made / GENERATION_CONFIG_NAME)


def _launch(file: Path, training: Training, log_file: Path) -> None:
    """Runs `fit` in a process for each GPU. On a machine without any, the processes share the CPU."""
    precision = "bf16" if training.settings.recipe.bf16 else "no"
    flags = ["--num_processes", str(training.run.processes), "--num_machines", "1", "--mixed_precision", precision]
    # --multi_gpu means several processes, of a CPU too (with --cpu there would be one); the trainer says which device.
    flags += ["--multi_gpu", "--main_process_port", str(free_port()), "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "prefdelta.train.fit", str(file)]
    told = file.with_name(ERROR)
    told.unlink(missing_ok=True)
    with running(command, log_file) as process:
        if process.wait():
            reason = told.read_text(encoding="utf-8") if told.exists() else f"exit code {process.returncode}"
            raise TrainingError(f"accelerate launch ended with {reason}: see {log_file}")


def _merge(folder: Path, work: Path) -> None:
    """Merges the adapter into the base checkpoint."""
    from peft import PeftModel

    base = load_model(folder, "auto")
    base.generation_config = GenerationConfig()
    merged = PeftModel.from_pretrained(base, work / "adapter").merge_and_unload()
    save_model(merged, merged.state_dict(), work / "model")


def _fingerprint(training: Training, base: Path) -> str:
    """A digest of all that a trainer's state is the state of: content, and which examples and weights each process has."""
    content = [training.settings.model_dump(mode="json"), training.per_device, training.run.processes, training.run.sharding]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for file in (training.pairs, base, *training.references.values()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _clear_unless_resumable(folder: Path, work: Path, fingerprint: str) -> None:
    """Empties ``folder``, keeping ``work`` if it has the same fingerprint."""
    mark = work / "fingerprint"
    same = mark.exists() and mark.read_text() == fingerprint
    for path in folder.iterdir() if folder.exists() else []:
        if path.is_dir() and not (path == work and same):
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    write_text(fingerprint, mark)
