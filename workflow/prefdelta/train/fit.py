"""The training itself, in each of its processes: `train.policy` calls it, or launches it by name once for each GPU."""

import json
import logging
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from prefdelta.checkpoints.load import load_config, load_model, load_tokenizer, not_finite
from prefdelta.checkpoints.manifest import ManifestError, checked_folder, write_manifest
from prefdelta.checkpoints.memory import fitting
from prefdelta.pairs.contrast import correct_delta, n_identical
from prefdelta.run.atomic import write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.lattice import Side
from prefdelta.study.recipe import Recipe
from prefdelta.study.strict import Strict
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Pairs
from prefdelta.train.settings import Training
from prefdelta.train.trainers import make_trainer
from prefdelta.train.watched import TrainingError

log = logging.getLogger(__name__)


ERROR = "error.txt"  # what a process of several says to the one that launched it


def first_loss(recipe: Recipe) -> float | None:
    """The loss of a policy that equals its reference; None where no reference takes part.

    From the formulas of TRL 1.16 (`DPOTrainer._compute_loss`, `KTOTrainer.kto_loss`) at log-ratios of zero: those that are
    functions of the sigmoid give ln 2, ``apo_zero`` the sum of two halves, ``ipo`` (0 - 1 / (2 beta))^2.
    """
    if not recipe.has_reference:
        return None
    if recipe.trainer == "kto":
        return 0.5
    if recipe.loss == "ipo":
        assert recipe.beta
        return 1 / (2 * recipe.beta) ** 2
    return 1.0 if recipe.loss == "apo_zero" else math.log(2)


class Outcome(Strict):
    """What a manifest says of a training. ``losses`` are by step, ``metrics`` the last step's; ``n_tokens`` includes prompts.

    ``correct_delta`` and ``n_identical``: as in `pairs.contrast`.
    """

    n_pairs: int
    n_identical: int
    mean_delta: float
    correct_delta: float | None
    n_tokens: int
    n_truncated: dict[Side, int]
    n_completion_tokens: int
    losses: list[float]
    metrics: dict[str, float]


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


class FirstLoss(TrainerCallback):  # type: ignore[misc]
    """Raises TrainingError after the first step where policy and reference differed before it."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        recipe = self.training.settings.recipe
        first, expected = logs.get("loss", math.nan), first_loss(recipe)
        if state.global_step > 1 or expected is None or not math.isfinite(first):
            return
        # Bfloat16 rounds the log-probability of a long trace by a nat or more; references of another model are off by far more.
        # Relative for IPO, whose loss is large where beta is small.
        if not math.isclose(first, expected, rel_tol=1e-4, abs_tol=0.2 if recipe.bf16 else 1e-4):
            raise TrainingError(
                f"the loss before {recipe.trainer}'s first step is {first:.6f}, not {expected:.4f}: the reference "
                f"log-probabilities ({', '.join(map(str, self.training.references.values()))}) are not those of "
                f"{self.training.base}. Delete them and run again."
            )


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint with a manifest once all processes have written theirs, and only then deletes the one before."""

    def __init__(self, trainer: Any) -> None:
        self.wait = trainer.accelerator.wait_for_everyone

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.wait()
        if state.is_world_process_zero:
            saved = Path(args.output_dir, f"checkpoint-{state.global_step}")
            write_manifest(saved / "manifest.json", {})
            for other in Path(args.output_dir).glob("checkpoint-*"):
                if other != saved:
                    shutil.rmtree(other)


def fit(file: Path) -> None:
    """Runs the `Training` of ``file`` from its last checkpoint on.

    Leaves the weights in ``model/`` (or ``adapter/``) and ``outcome.json`` (`Outcome`) beside ``file``. Raises TrainingError
    where policy and reference differ before the first step, and where a step goes wrong (`Watched`); OutOfMemoryError.
    """
    training, work = Training.model_validate_json(file.read_text(encoding="utf-8")), file.parent
    recipe, method = training.settings.recipe, training.settings.cell.method
    torch.set_num_threads(training.threads)
    set_seed(training.settings.seed)
    tokenizer = load_tokenizer(training.base, padding_side="right")
    frame = read_table(training.pairs, Pairs)
    dtype = load_config(training.base).dtype or torch.float32
    adapted = recipe.lora is not None
    advice = (
        f"lower run.methods.{method}.micro_batch (now {training.per_device}), set run.methods.{method}.gradient_checkpointing, "
        f"give it more `gpus` with `sharding`, or change the method: a lower max_length (now {recipe.max_length}), or `lora`"
    )
    with fitting(advice):
        # Steps of 1e-8 are lost on bfloat16 weights, so those that are trained stay in float32.
        model = load_model(training.base, dtype if adapted else torch.float32)
        # save_pretrained would refuse its makers' where they contradict themselves; the checkpoint keeps their file.
        model.generation_config = GenerationConfig()
        trainer, n_truncated, n_completion_tokens = make_trainer(model, tokenizer, frame, training, work)
        trainer.remove_callback(PrinterCallback)
        for callback in (Progress(), FirstLoss(training), Checkpoints(trainer)):
            trainer.add_callback(callback)
        last = _last_checkpoint(work)
        if last:
            log.info("going on from %s", last)
            told = json.loads(Path(last, "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
            trainer._total_train_tokens = int(told[-1]["num_tokens"])  # which TRL would count from zero
        trainer.train(resume_from_checkpoint=last)

        if adapted:
            trainer.save_model(str(work / "adapter"))
        else:
            state = trainer.accelerator.get_state_dict(trainer.model)  # gathered from all GPUs; empty but in the main process
            if trainer.is_world_process_zero():
                tuned = trainer.accelerator.unwrap_model(trainer.model)
                # A gathered or converted copy of a tied weight is a weight of its own to save_pretrained.
                kept = {name: weight.to(dtype) for name, weight in state.items() if name not in tuned.all_tied_weights_keys}
                save_model(tuned, kept, work / "model")
    if trainer.is_world_process_zero():
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        outcome = Outcome(
            n_pairs=len(frame),
            n_identical=n_identical(frame),
            mean_delta=float(frame["delta_overall"].mean()),  # type: ignore[arg-type]
            correct_delta=correct_delta(frame),
            n_tokens=int(history[-1]["num_tokens"]),
            n_truncated=n_truncated,
            n_completion_tokens=n_completion_tokens,
            losses=[round(entry["loss"], 6) for entry in history],
            metrics={key: value for key, value in history[-1].items() if isinstance(value, float)},
        )
        write_text(outcome.model_dump_json(), work / "outcome.json")


def save_model(model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Saves ``model`` with ``weights``. Raises TrainingError where one is not finite: float16 ends at 65,504."""
    if name := not_finite(weights):
        raise TrainingError(
            f"the trained weight {name} is not finite in {weights[name].dtype}, the policy's own dtype: train a copy of it in "
            "bfloat16 or float32, or lower the method's `learning_rate`"
        )
    model.save_pretrained(folder, state_dict=weights)


def set_aside_damaged(work: Path) -> None:
    """Renames the checkpoints of a killed run that are not what they were sealed as, or never were sealed."""
    for path in sorted(work.glob("checkpoint-*")):
        try:
            checked_folder(path / "manifest.json")
        except ManifestError as error:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            log.warning("%s is left aside: %s", path, error)


def _last_checkpoint(work: Path) -> str | None:
    """The newest of a killed run (`Checkpoints`)."""
    found = list(work.glob("checkpoint-*"))
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    file = Path(sys.argv[1])
    try:
        fit(file)
    except PrefdeltaError as error:
        write_text(str(error), file.with_name(ERROR))
        sys.exit(1)
