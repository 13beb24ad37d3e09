"""The training itself, in each of its processes: `train.policy` calls it, or launches it by name once for each GPU."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from prefdelta.run.atomic import write_text
from prefdelta.study.lattice import Side
from prefdelta.study.strict import Strict
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Pairs
from prefdelta.train.settings import Training
from prefdelta.train.trainers import make_trainer

log = logging.getLogger(__name__)


class Outcome(Strict, ser_json_inf_nan="constants"):
    """What a manifest says of a training. ``losses`` are by step, ``metrics`` the last step's; ``n_tokens`` includes prompts."""

    n_pairs: int
    mean_delta: float
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


def fit(file: Path) -> None:
    """Runs the `Training` of ``file`` from its last checkpoint on. Raises TrainingError.

    Leaves ``model/`` (or ``adapter/``) and ``outcome.json`` (`Outcome`) beside ``file``.
    """
    training, work = Training.model_validate_json(file.read_text(encoding="utf-8")), file.parent
    torch.set_num_threads(training.threads)
    set_seed(training.settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(training.base, padding_side="right")
    frame = read_table(training.pairs, Pairs)
    dtype = AutoConfig.from_pretrained(training.base).dtype or torch.float32
    adapted = training.settings.recipe.lora is not None
    # Steps of 1e-8 are lost on bfloat16 weights, so those that are trained stay in float32.
    model = AutoModelForCausalLM.from_pretrained(training.base, dtype=dtype if adapted else torch.float32)
    trainer, n_truncated, n_completion_tokens = make_trainer(model, tokenizer, frame, training, work)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
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
            tuned.save_pretrained(work / "model", state_dict=kept)
            # Training has changed its dtype and use_cache.
            AutoConfig.from_pretrained(training.base).save_pretrained(work / "model")
    if trainer.is_world_process_zero():
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        outcome = Outcome(
            n_pairs=len(frame),
            mean_delta=float(frame["delta_overall"].mean()),  # type: ignore[arg-type]
            n_tokens=int(history[-1]["num_tokens"]),
            n_truncated=n_truncated,
            n_completion_tokens=n_completion_tokens,
            losses=[round(entry["loss"], 6) for entry in history],
            metrics={key: value for key, value in history[-1].items() if isinstance(value, float)},
        )
        write_text(outcome.model_dump_json(), work / "outcome.json")


def _last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint of a killed run: trainer_state.json is written last."""
    found = [path for path in work.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    fit(Path(sys.argv[1]))
