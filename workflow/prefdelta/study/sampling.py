"""How completions are drawn."""

from pydantic import BaseModel, ConfigDict, Field

BACKENDS = ("transformers", "vllm", "openai", "dataset")


class Sampling(BaseModel):
    """How completions of one prompt are drawn. Temperature 0 is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    samples: int = Field(gt=0, description="completions for each prompt")
    temperature: float = Field(ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0: all tokens")
    max_new_tokens: int = Field(gt=0)
