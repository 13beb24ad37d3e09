"""Section `generators`: who writes traces for the training prompts."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator

from prefdelta.study.endpoints import UrlEndpoint, VllmEndpoint
from prefdelta.study.sampling import BACKENDS, PartialSampling
from prefdelta.study.sources import Source
from prefdelta.study.strict import Count, Strict

SEED_OF_A_DRAW = 1000
MOST_DRAWS = 100  # each is a generator of its own from here on
_DRAWS = "independent samples of all prompts (`{name}`, `{name}.draw1`, ...): one for each seed of an arm, in turn"


class CheckpointGenerator(Strict):
    """A checkpoint. Two generators with one model and two seeds are independent samples of it: the zero-delta control."""

    model: str = Field(description="one of `models`")
    backend: Literal["transformers", "vllm"] | None = Field(default=None, description="what runs it; default: the study's")
    seed: int = Field(default=0, description="of its traces")
    draws: Count = Field(default=1, le=MOST_DRAWS, description=_DRAWS)
    sampling: PartialSampling = Field(default=PartialSampling(), description="what it samples differently")

    @field_validator("backend", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if given not in (None, *BACKENDS):
            raise ValueError(f"unknown backend; choose from {', '.join(BACKENDS)}")
        return given


class OpenAIGenerator(Strict):
    """A generator behind an OpenAI-compatible API."""

    backend: Literal["openai"]
    model: str = Field(description="the model's name in requests")
    endpoint: Annotated[UrlEndpoint | VllmEndpoint, Field(discriminator="kind")] = Field(description="as of a judge: url or vllm")
    system: str | None = Field(default=None, description="system prompt")
    extra_body: dict[str, JsonValue] = Field(default={}, description="further keys of a request, such as reasoning_effort")
    think: tuple[str, str] = Field(default=("<think>", "</think>"), description="marks around the reasoning")
    seed: int = Field(default=0, description="of its traces")
    draws: Count = Field(default=1, le=MOST_DRAWS, description=_DRAWS)
    sampling: PartialSampling = Field(default=PartialSampling(), description="what it samples differently")


class DatasetGenerator(Source):
    """Traces that a data set holds already. A prompt is found by its text."""

    backend: Literal["dataset"]
    tokenizer: str = Field(description="one of `models`: its tokenizer counts the tokens")
    problem: str = Field(default="problem", description="column of the problem")
    generations: str = Field(default="generations", description="column with a list of completions")
    correct: list[str] = Field(
        default=["correctness_math_verify"], description="columns with lists of marks: the first that has one"
    )
    complete: str | None = Field(default="is_reasoning_complete", description="column with a list of marks")
    think: tuple[str, str] = Field(default=("<think>", "</think>"), description="marks around the reasoning")
    draws: ClassVar[int] = 1


def _kind_of_generator(value: Any) -> str:
    given = value.get("backend") if isinstance(value, dict) else None
    if given == "openai" or isinstance(value, OpenAIGenerator):
        return "OpenAIGenerator"
    return "DatasetGenerator" if given == "dataset" or isinstance(value, DatasetGenerator) else "CheckpointGenerator"


Generator = Annotated[
    Annotated[CheckpointGenerator, Tag("CheckpointGenerator")]
    | Annotated[OpenAIGenerator, Tag("OpenAIGenerator")]
    | Annotated[DatasetGenerator, Tag("DatasetGenerator")],
    Discriminator(_kind_of_generator),
]


def draw_of(generator: str, draw: int) -> str:
    """The name of a generator's independent sample; the first has the generator's own."""
    return f"{generator}.draw{draw}" if draw else generator
