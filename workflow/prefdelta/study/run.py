"""Section `run`: how a machine makes results, apart from what they are. An edit here makes nothing again.

It can stand in the study's file, in a second one (`--configfile study.yaml machine.yaml`), on the command line
(`--config 'run={methods: {dpo: {micro_batch: 2}}}'`) or under `config:` in a profile.
"""

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from prefdelta.study.strict import Count, Strict


class ModelRun(Strict):
    """How inference with a checkpoint runs, by vLLM where not said otherwise."""

    gpus: int = Field(
        default=1,
        ge=0,
        description="GPUs that inference takes (vLLM's tensor parallel size); not given: none on a machine without any",
    )
    max_model_len: Count | None = Field(
        default=None,
        description="context in tokens that memory is kept for; default: the model's own. What would be cut by it is an error",
    )
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1, description="share of a GPU's memory that vLLM takes")
    engine: dict[str, JsonValue] = Field(
        default={}, description="further arguments of vLLM's engine that change speed or memory only"
    )
    flags: list[str] = Field(default=[], description="further flags of a vLLM server that change speed or memory only")
    patience: float = Field(default=1800, gt=0, description="seconds until a server must be healthy")


class Prices(Strict):
    """What a provider takes for tokens: with them, what is spent is counted over all runs, and estimated before the first."""

    input: float = Field(ge=0, description="USD for a million tokens that are read")
    output: float = Field(ge=0, description="USD for a million tokens that are written")

    def of(self, read: float, written: float) -> float:
        """USD for so many tokens."""
        return (read * self.input + written * self.output) / 1e6


class RequestsRun(Strict):
    """How requests to an endpoint are made."""

    batch: bool = Field(default=False, description="use the provider's batch API (endpoints of kind `url`)")
    concurrency: Count = Field(
        default=128, description="requests under way at most; fewer where the server refuses more or does not keep up"
    )
    retries: int = Field(
        default=5,
        ge=0,
        description="of a request, with exponential backoff (5xx, timeouts, connection); at 429 as many as it takes",
    )
    timeout: float = Field(default=600, gt=0, description="seconds for one request")
    prices: Prices | None = Field(default=None, description="of the model, in the way that it is asked (`batch`, say)")
    cap: float | None = Field(
        default=None,
        ge=0,
        description="USD for this model at this endpoint, in all runs that share the store. A job stops before the request that "
        "could exceed it, and goes on from there once it is raised. Jobs at the same time do not know what others have under way",
    )
    give_up: float | None = Field(
        default=None,
        gt=0,
        description="minutes without any answer that end the job; default: 10, or `timeout` where that is longer",
    )

    @property
    def patience(self) -> float:
        """Seconds without any answer after which a job gives up."""
        return max(600, self.timeout) if self.give_up is None else 60 * self.give_up

    @model_validator(mode="after")
    def _priced(self) -> "RequestsRun":
        if self.cap is not None and self.prices is None:
            raise ValueError("cap needs prices: what tokens cost")
        return self


class TrainingRun(Strict):
    """How a method's training runs."""

    gpus: int = Field(
        default=0,
        ge=0,
        description="processes, one for each GPU; 0: in the job, on what there is. With several, pairs that do not fill a "
        "forward pass of all are left out of a pass over the data: there it is part of the result",
    )
    micro_batch: Count | None = Field(
        default=None,
        description="examples in a forward pass of one process; default: all. For kto it decides which completions are paired "
        "for the KL term, so there it is part of the result",
    )
    gradient_checkpointing: bool = Field(default=False, description="compute activations again instead of keeping them")
    sharding: Literal["fsdp", "deepspeed"] | None = Field(default=None, description="weights, gradients and optimiser over GPUs")
    checkpoint_steps: Count = Field(default=100, description="a killed run goes on from the last multiple of this")

    @property
    def processes(self) -> int:
        """Training processes, one for each GPU."""
        return max(1, self.gpus)


class Run(Strict):
    """Run settings by what they are of; a name that is left out has the defaults."""

    batch_size: Count = Field(default=512, description="sequences at a time in sampling (transformers) and references")
    models: dict[str, ModelRun] = Field(default={}, description="by name of a model with a `repo`")
    generators: dict[str, RequestsRun] = Field(default={}, description="by name of a generator behind an API")
    judges: dict[str, RequestsRun] = Field(default={}, description="by name of a judge")
    methods: dict[str, TrainingRun] = Field(default={}, description="by name of a method")
