"""Training recipes: the hyperparameters of a method, and when training must not start, as the configuration has them."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Gates(BaseModel):
    """Shares at which training does not start."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Traces without a rating are left out of pairs, and what a judge can't rate is no random part of them: 10 % can move a mean
    # delta by more than the differences between arms.
    judge_coverage: float = Field(default=0.9, ge=0, le=1, description="fewer of a generator's ratings are readable")
    # They have no gradient in DPO. Two good generators of the micro-world agree in 65 % of pairs, in 91 % where both are right;
    # above 80 %, fewer than 7 pairs of a step of 32 are left to learn from.
    identical_pairs: float = Field(default=0.8, ge=0, le=1, description="more pairs have equal texts on both sides")
    # A trace that is cut has neither answer nor end, and the long ones are the hard ones or the loops: then length is the delta.
    truncated: float = Field(default=0.2, ge=0, le=1, description="more of a side's traces are cut by a recipe's max_length")


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
    def n_examples(self) -> int:
        """Examples that a pair becomes."""
        return 2 if self.trainer == "kto" else 1

    @property
    def unit(self) -> int:
        """A pass over the data has a multiple of this many examples: KTO leaves out what does not fill a forward pass."""
        return self.per_device * self.processes if self.trainer == "kto" else 1

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
        return math.ceil(self.epochs * n_full_pairs * self.n_examples / self.batch_size)


def examples_read(n: int, n_steps: int, batch_size: int, unit: int) -> int:
    """Examples that ``n_steps`` read of ``n``: a pass ends with a smaller batch. 0 where ``n`` does not fill a ``unit``."""
    per_pass = n - n % unit
    if not per_pass:
        return 0
    passes, steps = divmod(n_steps, math.ceil(per_pass / batch_size))
    return passes * per_pass + steps * batch_size
