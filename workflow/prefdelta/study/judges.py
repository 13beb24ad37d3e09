"""Section `judges`: who rates traces."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.endpoints import JudgeEndpoint
from prefdelta.study.strict import Count, Strict


class Judge(Strict):
    """A judge behind an OpenAI-compatible API, or the ratings that a file holds."""

    model: str = Field(description="the model's name in requests")
    endpoint: Annotated[JudgeEndpoint, Field(discriminator="kind")] = Field(description="what is asked")
    repeats: Count = Field(default=5, lt=500, description="ratings of each trace (paper: 5)")
    choices_per_request: Count = Field(default=1, description="`n` of a request; must divide `repeats`")
    separate_dimensions: bool = Field(
        default=False, description="a request for each dimension, so that an edit of one rubric asks for that dimension only"
    )
    step_coherence: Literal["whole", "prefix"] = Field(
        default="whole",
        description="what it is judged from: the whole trace, or (CaSE, arXiv 2510.20603) each step from the problem and what "
        "stands before it, so never from what comes later: a request for each step, and their mean as the rating. Steps stand "
        "between blank lines, else line breaks, else semicolons",
    )
    reasoning_effort: Literal["low", "medium", "high"] | None = Field(default=None, description="for models that know it")
    temperature: float = Field(default=0.6, ge=0, description="of a request (paper: 0.6)")
    max_tokens: Count = Field(default=256, description="of an answer")
    seed: int = Field(default=0, description="each request has a seed of its own, derived from this one and its text")

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The dimensions that one request about a whole trace asks for, by request."""
        whole = tuple(name for name in DIMENSIONS if name != "step_coherence" or self.step_coherence == "whole")
        return [(name,) for name in whole] if self.separate_dimensions else [whole]

    @model_validator(mode="after")
    def _consistent(self) -> "Judge":
        if self.repeats % self.choices_per_request:
            raise ValueError(f"choices_per_request {self.choices_per_request} does not divide repeats {self.repeats}")
        return self
