"""Section `methods`: training recipes; `sweeps`: grids of them; `gates`: when no training starts, and no table is made."""

import math
from itertools import product
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from prefdelta.study.run import TrainingRun
from prefdelta.study.strict import Count, Share, Strict


class Gates(Strict):
    """Shares at which a training does not start, with a message that says where to look. They hold for every cell.

    Of an evaluation with more than the share `ungraded` no table is made, either.
    """

    # Traces without a rating are left out of pairs, and what a judge can't rate is no random part of them: 10 % can move a mean
    # delta by more than the differences between arms.
    judge_coverage: Share = Field(default=0.9, description="fewer of a generator's ratings are readable")
    # They have no gradient in DPO. Two good generators of the micro-world agree in 65 % of pairs, in 91 % where both are right;
    # above 80 %, fewer than 7 pairs of a step of 32 are left to learn from.
    identical_pairs: Share = Field(default=0.8, description="more pairs have equal texts on both sides")
    # A trace that is cut has neither answer nor end, and the long ones are the hard ones or the loops: then length is the delta.
    truncated: Share = Field(default=0.2, description="more of a side's traces are cut by a recipe's max_length")
    # What can't be graded is left out, and it is no random part: long expressions. 1 % moves an accuracy by one point at most.
    ungraded: Share = Field(default=0.01, description="more answers of a side, or of an evaluation, could not be graded")


class Lora(Strict):
    """A LoRA adapter through peft, merged into the checkpoint."""

    r: Count = Field(description="rank")
    alpha: Count = Field(description="scale, divided by the rank")
    target_modules: list[str] | Literal["all-linear"] = Field(default="all-linear", description="the layers that it adapts")


class Recipe(Strict):
    """How a method trains. ``batch_size`` counts the trainer's examples (pairs; for KTO single completions)."""

    trainer: Literal["dpo", "kto", "sft"] = Field(
        description="`dpo`, `kto` (each pair as two labelled completions) or `sft` (the chosen side only)"
    )
    beta: float | None = Field(default=None, gt=0, description="strength of the pull to the reference (dpo, kto)")
    learning_rate: float = Field(gt=0, description="the highest of the schedule")
    batch_size: Count = Field(description="examples in an optimiser step: pairs, for kto completions (so twice the pairs)")
    steps: Count | None = Field(default=None, description="optimiser steps, the same for every selection")
    epochs: float | None = Field(
        default=None, gt=0, description="instead of steps: passes over the *full* pair set; smaller selections repeat"
    )
    schedule: Literal["constant", "linear", "cosine", "constant_with_warmup"] = Field(
        default="linear", description="of the learning rate"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the learning rate rises from 0")
    max_length: Count = Field(
        default=1024, description="tokens of prompt and completion together; what is longer is cut, and counted for each side"
    )
    loss: Literal["sigmoid", "ipo", "robust", "apo_zero", "sigmoid_norm", "simpo"] = Field(
        default="sigmoid",
        description="of dpo: `sigmoid` (DPO itself), `ipo` (arXiv 2310.12036, per token), `robust` (arXiv 2403.00409: labels "
        "are wrong with the probability `label_smoothing`), `apo_zero` (arXiv 2408.06266), `sigmoid_norm` (log-probabilities per "
        "token, arXiv 2411.15124), `simpo` (arXiv 2405.14734: per token, no reference, and a `margin`)",
    )
    label_smoothing: float | None = Field(default=None, gt=0, lt=0.5, description="of `loss: robust`, which needs it")
    margin: float | None = Field(default=None, ge=0, description="gamma of `loss: simpo`, which needs it")
    bf16: bool = Field(default=False, description="mixed precision: float32 weights, bfloat16 arithmetic")
    lora: Lora | None = Field(default=None, description="train an adapter instead of all weights")

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a recipe has either `steps` or `epochs`")
        if (self.beta is None) != (self.trainer == "sft"):
            raise ValueError(f"`beta` belongs to dpo and kto and is required there; this recipe's trainer is {self.trainer}")
        if self.loss != "sigmoid" and self.trainer != "dpo":
            raise ValueError(f"`loss` belongs to dpo; this recipe's trainer is {self.trainer}")
        for key, loss in (("label_smoothing", "robust"), ("margin", "simpo")):
            if (getattr(self, key) is None) == (self.loss == loss):
                raise ValueError(f"`{key}` belongs to `loss: {loss}` and is required there; this recipe's loss is {self.loss}")
        return self

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with the untrained policy."""
        return self.trainer != "sft" and self.loss != "simpo"

    @property
    def reads(self) -> list[Literal["chosen", "rejected"]]:
        """The sides that training reads."""
        return ["chosen"] if self.trainer == "sft" else ["chosen", "rejected"]

    @property
    def arithmetic(self) -> Literal["float32", "bf16", "auto", "auto-bf16"]:
        """That of training: float32 weights, or the checkpoint's own where only an adapter is trained; and mixed precision."""
        if self.lora:
            return "auto-bf16" if self.bf16 else "auto"
        return "bf16" if self.bf16 else "float32"

    @property
    def n_examples(self) -> int:
        """Examples that a pair becomes."""
        return 2 if self.trainer == "kto" else 1

    def per_device(self, run: TrainingRun) -> int:
        """Examples in a forward pass of one process."""
        return run.micro_batch or max(1, self.batch_size // run.processes)

    def unit(self, run: TrainingRun) -> int:
        """A pass over the data has a multiple of this many examples: what does not fill a forward pass of all is left out.

        So it is with KTO, and with several processes, where accelerate would fill the last one up with examples of the next pass.
        """
        return self.per_device(run) * run.processes if self.trainer == "kto" or run.processes > 1 else 1

    def fault(self, run: TrainingRun) -> str | None:
        """Why the recipe can't run so, if it can't."""
        each = self.per_device(run)
        if self.batch_size % (each * run.processes):
            return f"batch_size {self.batch_size} is not a multiple of micro_batch {each} x {run.processes} processes"
        if self.trainer == "kto" and each < 2:
            return "kto needs a micro_batch of at least 2: its reference point comes from mismatched neighbours"
        if run.sharding and run.gpus < 2:
            return "`sharding` needs at least 2 gpus"
        return None

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


AXES = {"learning_rate": "lr", "beta": "b", "steps": "s"}  # as they stand in a recipe's name


class Sweep(Strict):
    """A method at every combination of these values: each is a method of its own, and in an experiment's `method` the sweep's
    name stands for all of them. In its name are the values that differ from the method's own, as in `dpo.lr1e-4.s50`."""

    method: str = Field(description="one of `methods`, whose other settings all have")
    learning_rate: list[PositiveFloat] = Field(default=[], description="default: the method's own")
    beta: list[PositiveFloat] = Field(default=[], description="default: the method's own")
    steps: list[Count] = Field(default=[], description="default: the method's own; else in place of its `epochs`")

    def recipes(self, method: Recipe) -> dict[str, Recipe]:
        """The recipes by their names; ``method`` is the one that is swept. Raises pydantic's ValidationError."""
        own = method.model_dump()
        found = {}
        for values in product(*(getattr(self, axis) or [own[axis]] for axis in AXES)):
            point = dict(zip(AXES, values, strict=True))
            parts = [f".{short}{_written(point[axis])}" for axis, short in AXES.items() if point[axis] != own[axis]]
            changed = own | point | ({"epochs": None} if self.steps else {})
            found["".join([self.method, *parts])] = Recipe.model_validate(changed)
        return found


def _written(value: float) -> str:
    """A number as part of a name: 0.0002 is 2e-4."""
    if value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
