"""How completions are drawn."""

from typing import Annotated

from pydantic import Field, model_validator

from prefdelta.study.strict import Count, Strict

BACKENDS = ("transformers", "vllm", "openai", "dataset")


class Sampling(Strict):
    """How completions of one prompt are drawn. Temperature 0 is greedy."""

    samples: Count = Field(description="completions for each prompt")
    temperature: float = Field(ge=0, description="of the softmax; 0: greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="the smallest set of tokens with this share of probability")
    top_k: int = Field(default=0, ge=0, description="the most likely tokens; 0: all")
    max_new_tokens: Count = Field(description="tokens of a completion at most")

    def changed(self, *overrides: "PartialSampling") -> "Sampling":
        """Plain sampling with what ``overrides`` say, the last one first."""
        content = {name: getattr(self, name) for name in Sampling.model_fields}
        for override in overrides:
            content |= override.model_dump(exclude_none=True)
        return Sampling.model_validate(content)


class PartialSampling(Strict):
    """What a model or a generator samples differently."""

    samples: Count | None = Field(default=None, description="completions for each prompt")
    temperature: float | None = Field(default=None, ge=0, description="of the softmax; 0: greedy")
    top_p: float | None = Field(default=None, gt=0, le=1, description="share of probability")
    top_k: int | None = Field(default=None, ge=0, description="the most likely tokens; 0: all")
    max_new_tokens: Count | None = Field(default=None, description="tokens of a completion at most")


class Evaluation(Sampling):
    """How every checkpoint is evaluated: ``samples`` at ``temperature`` (avg@k), and once greedily."""

    greedy: bool = Field(default=True, description="also one greedy answer to each item")
    temperatures: list[Annotated[float, Field(gt=0)]] = Field(
        default=[],
        description="the untuned policies answer at these, too: `tables/sharpening.csv` tells what a trained arm gains from what "
        "another temperature would",
    )
    seed: int = Field(default=0, description="of all sampled answers")

    @model_validator(mode="after")
    def _other_temperatures(self) -> "Evaluation":
        given = [self.temperature, *self.temperatures]
        if twice := [value for value in self.temperatures if given.count(value) > 1]:
            raise ValueError(f"temperatures: {twice[0]} is there twice; the evaluation's own is evaluated anyway")
        return self
