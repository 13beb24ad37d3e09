"""TRL's trainers, given token ids and stored reference log-probabilities, and a forward without padding."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import polars as pl
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.trainer.utils import use_adapter

from prefdelta.checkpoints.load import load_model
from prefdelta.generate.chat import tokenised
from prefdelta.study.lattice import SIDES, Side
from prefdelta.study.models import Chat
from prefdelta.study.recipe import Recipe, examples_read
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import References
from prefdelta.train.packed import use_packed_forward
from prefdelta.train.settings import Training
from prefdelta.train.watched import NAME, TrainingError, Watched

log = logging.getLogger(__name__)

Tokens = list[tuple[list[int], int]]  # as `tokenised` gives them

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


class StoredReferenceDPOTrainer(Watched, DPOTrainer):  # type: ignore[misc]
    """DPO on token ids, with ``ref_chosen_logps`` and ``ref_rejected_logps`` in the data set: no reference model runs.

    A step's loss is the mean over its pairs, however they are divided into micro-batches. TRL's is the mean of the micro-batches'
    means, in which the pairs of a smaller last one weigh more.
    """

    _rows_each = 1.0  # of the micro-batches of a step, their mean

    def get_batch_samples(self, *arguments: Any) -> Any:
        batches, n_items = super().get_batch_samples(*arguments)
        if batches:
            self._rows_each = sum(len(batch["input_ids"]) for batch in batches) / len(batches)
        return batches, n_items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **options)
        assert isinstance(loss, torch.Tensor)
        return loss * (len(inputs["input_ids"]) / self._rows_each)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


class WatchedSFTTrainer(Watched, SFTTrainer):  # type: ignore[misc]
    """SFT on token ids."""


class StoredReferenceKTOTrainer(Watched, KTOTrainer):  # type: ignore[misc]
    """KTO on token ids, with ``ref_logps`` in the data set. A reference model runs for the mismatched pairs of the KL term only,
    which are others for every selection and order.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        adapted = is_peft_model(self.model)
        untrained = use_adapter(self.accelerator.unwrap_model(self.model), None) if adapted else contextlib.nullcontext()
        with untrained:
            inputs["ref_KL_logps"] = self._compute_kl_logps(model if adapted else self.ref_model, inputs)
        return super()._compute_loss(model, inputs, return_outputs)


def make_trainer(
    model: Any,
    tokenizer: Any,
    frame: pl.DataFrame,
    training: Training,
    work: Path,
) -> tuple[Any, dict[Side, int], int]:
    """The trainer of ``model`` on ``frame`` (`Pairs`), which leaves its checkpoints in the folder ``work``.

    With it come the number of traces of each side that the length limit cuts, and `_completion_tokens`. Raises TrainingError.
    """
    recipe = training.settings.recipe
    sides, n_truncated = _sides(tokenizer, frame, training.settings.chat, recipe.max_length)
    counts = n_truncated, _completion_tokens(sides, training)
    arguments = _arguments(training, work)
    common = {"model": model, "processing_class": tokenizer, "peft_config": _adapter(recipe)}
    if recipe.trainer == "sft":
        rows = [
            {"input_ids": ids, "labels": [-100] * start + ids[start:], NAME: name}
            for (ids, start), name in zip(sides["chosen"], frame["chosen_trace_id"], strict=True)
        ]
        trainer = WatchedSFTTrainer(**common, args=SFTConfig(**arguments), train_dataset=Dataset.from_list(rows))
        trainer.watch()
        return trainer, *counts

    stored = _stored(frame, training.references) if recipe.has_reference else _margin(sides, recipe)
    arguments |= {"beta": recipe.beta, "precompute_ref_log_probs": True}
    if recipe.trainer == "kto":
        trainer = _kto_trainer(common, arguments, frame, sides, stored, training)
    else:
        columns = {
            "prompt_ids": [ids[:start] for ids, start in sides["chosen"]],
            **{f"{side}_ids": [ids[start:] for ids, start in sides[side]] for side in SIDES},
            **{f"ref_{side}_logps": logps for side, logps in stored.items()},
            NAME: frame["pair_id"].to_list(),
        }
        arguments["loss_type"] = ["sigmoid_norm" if recipe.loss == "simpo" else recipe.loss]
        settings = DPOConfig(**arguments, label_smoothing=recipe.label_smoothing or 0.0)
        trainer = StoredReferenceDPOTrainer(**common, args=settings, train_dataset=Dataset.from_dict(columns))
    trainer.watch()
    _pack(trainer)
    return trainer, *counts


def _kto_trainer(
    common: dict[str, Any],
    arguments: dict[str, Any],
    frame: pl.DataFrame,
    sides: dict[Side, Tokens],
    stored: dict[Side, list[float]],
    training: Training,
) -> Any:
    rows = [
        {"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": side == "chosen", "ref_logps": logp, NAME: name}
        for side in SIDES
        for (ids, start), logp, name in zip(sides[side], stored[side], frame[f"{side}_trace_id"], strict=True)
    ]

    def mismatch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"KL_completion_ids": batch["completion_ids"][-1:] + batch["completion_ids"][:-1]}

    # KTO reads its data in order, since its KL term pairs neighbours (as TRL does): so the order is shuffled here.
    data = Dataset.from_list(rows).shuffle(seed=training.settings.seed)
    data = data.map(mismatch, batched=True, batch_size=training.per_device)
    # An adapter is switched off instead.
    adapted = training.settings.recipe.lora is not None
    untrained = None if adapted else load_model(training.base, torch.float32)
    settings = KTOConfig(**arguments, train_sampling_strategy="sequential")
    return StoredReferenceKTOTrainer(**common, ref_model=untrained, args=settings, train_dataset=data)


def _pack(trainer: Any) -> None:
    """Has the models of ``trainer`` use the packed forward, where it computes what the padded one does."""
    model = trainer.model.get_base_model() if is_peft_model(trainer.model) else trainer.model
    models = [model] if trainer.ref_model is None else [model, trainer.ref_model]
    if not all(map(use_packed_forward, models)):
        log.warning("the forward without padding does not fit %s: training pads", type(model).__name__)


def _sides(tokenizer: Any, frame: pl.DataFrame, chat: Chat, max_length: int) -> tuple[dict[Side, Tokens], dict[Side, int]]:
    """`tokenised` traces of each side, cut to ``max_length``, and how many of them were cut.

    Raises TrainingError where a prompt alone fills the limit: TRL would leave its pair out, and arms would differ in pairs.
    """
    sides: dict[Side, Tokens] = {}
    n_truncated: dict[Side, int] = {}
    for side in SIDES:
        whole = tokenised(tokenizer, frame["prompt"].to_list(), frame[side].to_list(), chat)
        too_long = [name for name, (_, start) in zip(frame["prompt_id"], whole, strict=True) if start >= max_length]
        if too_long:
            raise TrainingError(f"{len(too_long)} prompts fill max_length {max_length} alone, such as {too_long[0]}: raise it")
        sides[side] = [(ids[:max_length], start) for ids, start in whole]
        n_truncated[side] = sum(len(ids) > max_length for ids, _ in whole)
        log.info("%d of %d %s traces are cut at %d tokens", n_truncated[side], len(frame), side, max_length)
    return sides, n_truncated


def _completion_tokens(sides: dict[Side, Tokens], training: Training) -> int:
    """Completion tokens, cut to the length limit, that all steps read: of both sides, of SFT the chosen only.

    Of a pass that is not finished, and of what is left out, the mean length counts.
    """
    settings, recipe = training.settings, training.settings.recipe
    n_tokens = sum(len(ids) - start for side in recipe.reads for ids, start in sides[side])
    n = len(sides["chosen"]) * recipe.n_examples
    return round(n_tokens / n * examples_read(n, settings.n_steps, recipe.batch_size, settings.unit))


def _stored(frame: pl.DataFrame, references: dict[Side, Path]) -> dict[Side, list[float]]:
    """Reference log-probabilities of both sides' traces."""
    stored = pl.concat([read_table(path, References) for path in dict.fromkeys(references.values())])
    columns: dict[Side, list[float]] = {}
    for side in SIDES:  # of a flipped pair, the chosen trace is in the other generator's table
        joined = frame.select(trace_id=f"{side}_trace_id").join(stored, on="trace_id", how="left", maintain_order="left")
        if missing := joined["logp"].null_count():
            raise TrainingError(f"{missing} {side} traces have no reference in {references[side]}")
        columns[side] = joined["logp"].to_list()
    return columns


def _margin(sides: dict[Side, Tokens], recipe: Recipe) -> dict[Side, list[float]]:
    """What makes of `sigmoid_norm` the loss of SimPO, -ln sigmoid(beta x (mean chosen - mean rejected log-probability) - gamma)
    (arXiv 2405.14734, equation 6): gamma / beta nats for each chosen token, nothing for rejected ones.

    TRL has SimPO in its experimental CPOTrainer alone, which tokenises texts itself and pads; a test compares the losses. The
    rewards that are logged are then less these constants.
    """
    assert recipe.beta and recipe.margin is not None
    each: dict[Side, float] = {"chosen": recipe.margin / recipe.beta, "rejected": 0.0}
    return {side: [each[side] * (len(ids) - start) for ids, start in sides[side]] for side in SIDES}


def _adapter(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.lora
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM")


def _arguments(training: Training, work: Path) -> dict[str, Any]:
    settings, recipe, run = training.settings, training.settings.recipe, training.run
    arguments: dict[str, Any] = {
        "output_dir": str(work),
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": training.per_device,
        "gradient_accumulation_steps": recipe.batch_size // (training.per_device * run.processes),
        "max_steps": settings.n_steps,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_steps,
        "max_length": recipe.max_length,
        "seed": settings.seed,
        "save_steps": run.checkpoint_steps,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would write 0 for a loss that is none
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": run.gradient_checkpointing,
        "bf16": recipe.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_drop_last": settings.unit > 1,
    }
    match run.sharding:
        case "fsdp":
            arguments |= {"fsdp": True, "fsdp_config": FSDP}
        case "deepspeed":
            arguments |= {"deepspeed": DEEPSPEED}
    return arguments
