"""Section `judges`: who rates traces."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prefdelta.study.dimensions import PAPER, Rubric
from prefdelta.study.endpoints import FileEndpoint, JudgeEndpoint, MicroworldEndpoint
from prefdelta.study.strict import Count, Strict


def _or_a_file(schema: dict[str, Any]) -> None:
    """A file stands for what it holds: `configure` reads it before it validates."""
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "string"}]
    del schema["default"]


class Judge(Strict):
    """A judge behind an OpenAI-compatible API, or the ratings that a file holds."""

    model: str = Field(description="the model's name in requests")
    endpoint: Annotated[JudgeEndpoint, Field(discriminator="kind")] = Field(description="what is asked")
    rubric: Rubric = Field(
        default=PAPER,
        exclude_if=lambda rubric: rubric == PAPER,  # a study that says nothing of it is what it was before there was a choice
        json_schema_extra=_or_a_file,
        description="what is rated, in which words and on which scale: a file, such as `config/rubrics/paper.yaml`, which is the "
        "default, or its keys",
    )
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
        by_step = self.rubric.step.name if self.rubric.step and self.step_coherence == "prefix" else None
        whole = tuple(name for name in self.rubric.rated.names if name != by_step)
        return [(name,) for name in whole] if self.separate_dimensions else [whole] if whole else []

    @model_validator(mode="after")
    def _consistent(self) -> "Judge":
        if self.repeats % self.choices_per_request:
            raise ValueError(f"choices_per_request {self.choices_per_request} does not divide repeats {self.repeats}")
        if self.step_coherence == "prefix" and self.rubric.step is None:
            raise ValueError("step_coherence: prefix asks about single steps: rubric.step must say in which words")
        if isinstance(self.endpoint, MicroworldEndpoint) and self.rubric != PAPER:
            raise ValueError(
                "rubric: the micro-world's oracle knows the paper's rubric only; leave it out, or ask another endpoint"
            )
        if not isinstance(self.endpoint, FileEndpoint) and self.rubric.unasked:
            raise ValueError(f"rubric: a judge that is asked needs more than names: {self.rubric.unasked}")
        return self
