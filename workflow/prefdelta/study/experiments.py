"""Section `experiments`: questions, and the arms that answer them."""

from itertools import product
from typing import Literal

from pydantic import Field, model_validator

from prefdelta.study.strict import Count, Strict

# Tables that every study has.
RESERVED = (
    "capability",
    "generator_level_delta",
    "coverage",
    "decontamination",
    "regressions",
    "judge_audit",
    "delta_correction",
    "claims",
    "prediction",
    "predicted_arms",
    "whatif",
    "overlap",
    "balance",
    "sharpening",
    "replication",
    "two_deltas",
    "requests",
)


BY_ACCURACY = ("ladder", "grid", "crossed")  # figures whose arms are told apart by the accuracy of their generators


class Primary(Strict):
    """A comparison by the names of its arms in the tables: of ``arm`` with ``versus``."""

    arm: str = Field(description="as tables and figures name it: the words in which the experiment's arms differ")
    versus: str = Field(default="base", description="`base`, the untuned policy, or a control arm by its name")


class Experiment(Strict):
    """A question and the arms that answer it: the product of the lists, without arms whose sides are the same generator.

    Instead of `chosen` and `rejected`, `pairs` may list which generator is over which.
    """

    title: str = Field(description="over the figure")
    question: str = Field(description="that it answers")
    caveat: str = Field(description="what its answer can't say")
    figure: Literal["ladder", "bars", "sweep", "steps", "grid", "crossed", "recipes", "profile"] = Field(
        description="`ladder` (gain by generator-level delta), `bars`, `sweep` (gain by number of pairs), `steps` (gain by "
        "steps), `grid` (chosen by rejected), `crossed` (generators by bands of sample-level delta), `recipes` (each method's "
        "best recipe, on average over the pairs), `profile` (distributions of deltas; trains nothing)"
    )
    chosen: list[str] = Field(default=[], description="generators of the chosen side")
    rejected: list[str] = Field(default=[], description="generators of the rejected side")
    pairs: list[tuple[str, str]] = Field(
        default=[], description="instead of both: [chosen, rejected] generators, such as [[b, a], [c, b]]"
    )
    selection: list[str] = Field(default=["full"], min_length=1, description="which pairs; the grammar is below")
    policy: list[str] = Field(default=[], description="default: the first policy")
    method: list[str] = Field(default=[], description="methods, or sweeps of one; default: the first method")
    judge: list[str] = Field(default=[], description="default: the first judge")
    seeds: Count = Field(
        default=3, le=100, description="seeds 0 to n-1 of each arm: of training, random selections, generators' draws"
    )
    versus: list[dict[Literal["chosen", "rejected", "selection", "policy", "method", "judge"], str]] = Field(
        default=[],
        description="controls: each arm is compared with the arm that differs from it in these words only; in a selection, `{k}` "
        "stands for the arm's own k, and an arm without one has no such control. The base policy is always a control",
    )
    primary: Primary | None = Field(
        default=None,
        description="the one comparison (sampled accuracy on the last suite) that is tested by itself, at the full level, and "
        "said first; all others are secondary, and corrected among those with the same control. Default: of a ladder its trend, "
        "else none",
    )

    @property
    def sides(self) -> list[tuple[str, str]]:
        """Chosen and rejected generators of its arms."""
        return self.pairs or [sides for sides in product(self.chosen, self.rejected) if sides[0] != sides[1]]

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if {bool(self.chosen), bool(self.rejected)} != {not self.pairs}:
            raise ValueError("an experiment has either `chosen` and `rejected`, or `pairs`")
        if self.figure == "crossed" and min(len(self.sides), len(self.selection)) < 2:
            raise ValueError("a crossed experiment has at least two pairs of generators, and two selections")
        return self
