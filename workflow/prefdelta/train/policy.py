"""Preference tuning with TRL: DPO, KTO, or SFT on the chosen side."""

import hashlib
import json
import math
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdelta.checkpoints.manifest import checked_folder, read_manifest, write_manifest
from prefdelta.run.atomic import write_text
from prefdelta.run.processes import free_port, running
from prefdelta.study.lattice import Side
from prefdelta.train.fit import Outcome, fit
from prefdelta.train.gates import check_gates
from prefdelta.train.settings import PolicyRun, PolicySettings, Training
from prefdelta.train.trainers import TrainingError

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


# Of a policy that equals its reference: -ln sigmoid(0), and 1 - sigmoid(0).
FIRST_LOSS = {"dpo": math.log(2), "kto": 0.5}


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
    GateError where `check_gates` does, before a model is loaded. Raises TrainingError where the first loss is not `FIRST_LOSS`
    (for DPO ln 2), that is, where policy and reference differ before the first step, and where a prompt alone fills the length
    limit.
    """
    recipe, folder, work = settings.recipe, checked_folder(base), manifest.parent / ".trainer"
    check_gates(pairs, ratings, references, folder, settings, run.gates)
    training = Training(pairs=pairs, base=folder, references=references, settings=settings, run=run.training, threads=threads)
    _clear_unless_resumable(manifest.parent, work, _fingerprint(training, base))
    write_text(training.model_dump_json(), work / "training.json")
    if run.training.processes == 1:
        fit(work / "training.json")
    else:
        _launch(work / "training.json", training, log_file)

    outcome = Outcome.model_validate_json((work / "outcome.json").read_text(encoding="utf-8"))
    # Bfloat16 rounds the log-probability of a long trace by a nat or more; references of another model are off by far more.
    first, expected = outcome.losses[0], FIRST_LOSS.get(recipe.trainer)
    if expected and not math.isclose(first, expected, abs_tol=0.2 if recipe.bf16 else 1e-4):
        raise TrainingError(
            f"the loss before {recipe.trainer}'s first step is {first}, not {expected:.4f}: the reference log-probabilities "
            f"({', '.join(map(str, references.values()))}) are not those of {base}. Delete them and run again."
        )
    if recipe.lora:
        _merge(folder, work)
    for file in (work / "model").iterdir():
        file.replace(manifest.parent / file.name)
    AutoTokenizer.from_pretrained(folder).save_pretrained(manifest.parent)
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


def _launch(file: Path, training: Training, log_file: Path) -> None:
    """Runs `fit` in a process for each GPU. On a machine without any, the processes share the CPU."""
    precision = "bf16" if training.settings.recipe.bf16 else "no"
    flags = ["--num_processes", str(training.run.processes), "--num_machines", "1", "--mixed_precision", precision]
    # --multi_gpu means several processes, of a CPU too (with --cpu there would be one); the trainer says which device.
    flags += ["--multi_gpu", "--main_process_port", str(free_port()), "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "prefdelta.train.fit", str(file)]
    with running(command, log_file) as process:
        if process.wait():
            raise TrainingError(f"accelerate launch ended with exit code {process.returncode}: see {log_file}")


def _merge(folder: Path, work: Path) -> None:
    """Merges the adapter into the base checkpoint."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    PeftModel.from_pretrained(base, work / "adapter").merge_and_unload().save_pretrained(work / "model")


def _fingerprint(training: Training, base: Path) -> str:
    """A digest of all that a trainer's state is the state of: content, and which examples and weights each process has."""
    content = [training.settings.model_dump(mode="json"), training.per_device, training.run.processes, training.run.sharding]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for file in (training.pairs, base):
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
