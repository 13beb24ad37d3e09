"""Sections `models`, `authors` and `world`: the language models of a study, and what those of the micro-world learn from."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.sampling import PartialSampling
from prefdelta.study.sources import Domain
from prefdelta.study.strict import Count, Share, Strict

N_OPERATIONS = 15  # of the micro-world, such as +3: a habit is about one of them


class World(Strict):
    """What the authors of the micro-world share: operations that many of them get wrong in the same way."""

    seed: int = Field(default=0, description="which operations, and what is made of them")
    habits: dict[Literal[DIMENSIONS], Count] = Field(  # type: ignore[valid-type]
        default={},
        description=f"in how many of the {N_OPERATIONS} operations (such as +3) there is a habit, by the dimension of its fault",
    )


class Author(Strict):
    """Who writes texts for corpora of the micro-world. What is left out is faultless."""

    factuality: Share = Field(default=0.0, description="probability, at each step, that a number is misread")
    strategy_coherence: Share = Field(default=0.0, description="... that another operation is applied")
    step_coherence: Share = Field(default=0.0, description="... that the step does not start from the last result")
    computational_precision: Share = Field(default=0.0, description="... that the result is another one")
    signal_to_noise: Share = Field(default=0.0, description="... that a filler statement stands before the step")
    habits: Share | dict[Literal[DIMENSIONS], Share] = Field(  # type: ignore[valid-type]
        default=0.0,
        description="probability that a text holds a habit of the `world`, of each habit by itself: one for all, or by dimension",
    )

    def rate(self, dimension: str) -> float:
        """The probability of a slip in ``dimension`` at each step."""
        rate: float = getattr(self, dimension)
        return rate

    def holds(self, dimension: str) -> float:
        """The probability that a text holds a habit of ``dimension``."""
        return self.habits.get(dimension, 0.0) if isinstance(self.habits, dict) else self.habits


class MicroworldModel(Strict):
    """A language model of the micro-world, trained from scratch into an ordinary transformers checkpoint."""

    family: Literal["qwen3", "llama"] = Field(description="its architecture")
    hidden_size: Count = Field(description="width")
    layers: Count = Field(description="depth")
    heads: Count = Field(description="attention heads, of 32 dimensions each")
    authors: dict[str, Annotated[float, Field(gt=0)]] = Field(description="author -> weight in the training corpus")
    domains: list[Domain] = Field(default=["arithmetic", "program", "story"], description="domains of the corpus")
    operations: tuple[Count, Count] | None = Field(
        default=None, description="fewest and most operations of a problem of the corpus; default: the study's"
    )
    start: str | None = Field(
        default=None,
        description="one of `models`, of the same shape and without a start, whose weights training starts from",
    )
    steps: Count = Field(
        description="optimiser steps: AdamW with 50 steps of warm-up (10 of a model that has a `start`) and a cosine decay"
    )
    batch_size: Count = Field(default=64, description="texts in a step")
    learning_rate: float = Field(gt=0, description="the highest of the schedule")
    seed: int = Field(default=0, description="of weights, corpus and order")
    writes: Literal["traces", "ratings"] = Field(
        default="traces",
        description="ratings: it is a judge, trained to check its authors' traces step by step and to write the exact oracle's "
        "ratings; only a judge can use it, by an endpoint of kind `transformers`",
    )


class Chat(Strict):
    """How a conversation is put to a model (`HubModel`)."""

    system: str | None = None
    chat_template_kwargs: dict[str, JsonValue] = {}


class HubModel(Strict):
    """A checkpoint of the Hugging Face hub, or a local folder in its format."""

    repo: str = Field(description="hub id, or a local folder in transformers' format")
    revision: str | None = Field(default=None, description="commit; `make pin` prints it")
    family: str = Field(description="for tables and cards")
    license: str = Field(default="not stated", description="for cards")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="bfloat16", description="of its weights in inference"
    )
    engine: dict[str, JsonValue] = Field(
        default={}, description="further arguments of vLLM's engine that change what it writes; others belong to `run.models`"
    )
    sampling: PartialSampling = Field(default=PartialSampling(), description="what its traces are sampled with differently")
    system: str | None = Field(default=None, description="system prompt")
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default={}, description="switches of the chat template, such as {enable_thinking: false}"
    )
    think: tuple[str, str] = Field(
        default=("<think>", "</think>"), description="marks around the reasoning; two empty ones: it does not reason apart"
    )

    @property
    def chat(self) -> Chat:
        return Chat(system=self.system, chat_template_kwargs=self.chat_template_kwargs)


class Inference(Chat):
    """What a job must know of a checkpoint that it runs, besides its folder. By default, it is one of the micro-world."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    engine: dict[str, JsonValue] = {}
    think: tuple[str, str] = ("", ";")  # the last statement is the answer


def _kind_of_model(value: Any) -> str:
    return "HubModel" if isinstance(value, HubModel) or (isinstance(value, dict) and "repo" in value) else "MicroworldModel"


Model = Annotated[
    Annotated[MicroworldModel, Tag("MicroworldModel")] | Annotated[HubModel, Tag("HubModel")],
    Discriminator(_kind_of_model),
]
