"""Section `experiments`: questions, and the arms that answer them."""

from typing import Literal

from pydantic import Field

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
)


class Primary(Strict):
    """A comparison by the names of its arms in the tables: of ``arm`` with ``versus``."""

    arm: str = Field(description="as tables and figures name it: the words in which the experiment's arms differ")
    versus: str = Field(default="base", description="`base`, the untuned policy, or a control arm by its name")


class Experiment(Strict):
    """A question and the arms that answer it: the product of the lists, without arms whose sides are the same generator."""

    title: str = Field(description="over the figure")
    question: str = Field(description="that it answers")
    caveat: str = Field(description="what its answer can't say")
    figure: Literal["ladder", "bars", "sweep", "steps", "grid", "recipes", "profile"] = Field(
        description="`ladder` (gain by generator-level delta), `bars`, `sweep` (gain by number of pairs), `steps` (gain by "
        "steps), `grid` (chosen by rejected), `recipes` (each method's best recipe, on average over the pairs), `profile` "
        "(distributions of deltas; trains nothing)"
    )
    chosen: list[str] = Field(min_length=1, description="generators of the chosen side")
    rejected: list[str] = Field(min_length=1, description="generators of the rejected side")
    selection: list[str] = Field(default=["full"], min_length=1, description="which pairs; the grammar is below")
    policy: list[str] = Field(default=[], description="default: the first policy")
    method: list[str] = Field(default=[], description="methods, or sweeps of one; default: the first method")
    judge: list[str] = Field(default=[], description="default: the first judge")
    seeds: Count = Field(default=3, description="seeds 0 to n-1 of each arm: of training, random selections, generators' draws")
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
