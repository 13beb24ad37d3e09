"""Training recipes: the hyperparameters of a method, named in the configuration."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Lora(BaseModel):
    """A LoRA adapter through peft."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    r: int = Field(gt=0)
    alpha: int = Field(gt=0)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class Recipe(BaseModel):
    """How a method trains. ``batch_size`` counts the trainer's examples (pairs; for KTO single completions)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    trainer: Literal["dpo", "kto", "sft"]
    beta: float | None = Field(default=None, gt=0, description="strength of the pull to the reference (dpo, kto)")
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0, description="examples in an optimiser step")
    steps: int | None = Field(default=None, gt=0, description="optimiser steps, the same for every selection")
    epochs: float | None = Field(
        default=None, gt=0, description="instead of steps: passes over the full pair set; smaller selections repeat"
    )
    schedule: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    max_length: int = Field(default=1024, gt=0, description="tokens of prompt and completion together")
    length_normalised: bool = Field(default=False, description="DPO on log-probabilities per token (arXiv 2411.15124)")
    gpus: int = Field(default=0, ge=0, description="GPUs; more than one: `accelerate launch`")
    micro_batch: int | None = Field(default=None, gt=0, description="examples in a forward pass of one GPU; default: all")
    bf16: bool = Field(default=False, description="mixed precision: float32 weights, bfloat16 arithmetic")
    gradient_checkpointing: bool = False
    sharding: Literal["fsdp", "deepspeed"] | None = Field(default=None, description="weights, gradients and optimiser over GPUs")
    checkpoint_steps: int = Field(gt=0, description="a killed run resumes from the last multiple of this")
    lora: Lora | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a recipe has either `steps` or `epochs`")
        if (self.beta is None) != (self.trainer == "sft"):
            raise ValueError(f"`beta` belongs to dpo and kto and is required there; this recipe's trainer is {self.trainer}")
        if self.length_normalised and self.trainer != "dpo":
            raise ValueError(f"`length_normalised` belongs to dpo; this recipe's trainer is {self.trainer}")
        if self.batch_size % (self.per_device * self.processes):
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch {self.per_device} x {self.processes} processes"
            )
        if self.trainer == "kto" and self.per_device < 2:
            raise ValueError("kto needs a micro_batch of at least 2: its reference point comes from mismatched neighbours")
        if self.sharding and self.gpus < 2:
            raise ValueError("`sharding` needs at least 2 gpus")
        return self

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with the untrained policy."""
        return self.trainer != "sft"

    @property
    def processes(self) -> int:
        """Training processes, one for each GPU."""
        return max(1, self.gpus)

    @property
    def per_device(self) -> int:
        """Examples in a forward pass of one process."""
        return self.micro_batch or max(1, self.batch_size // self.processes)

    def n_steps(self, n_full_pairs: int) -> int:
        """Optimiser steps, the same for every selection from ``n_full_pairs`` pairs: arms stay comparable."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        examples = n_full_pairs * (2 if self.trainer == "kto" else 1)
        return math.ceil(self.epochs * examples / self.batch_size)
