"""Settings of the stages that make problems, and answers to them."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from prefdelta.study.endpoints import UrlEndpoint, VllmEndpoint
from prefdelta.study.models import Inference
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling
from prefdelta.study.sources import ItemsSource, PromptsSource, Source
from prefdelta.study.strict import Strict


class ItemsSettings(Strict):
    """Of `make_items`: a task of the micro-world has a number of problems, any other a source."""

    split: str
    tasks: dict[str, int | ItemsSource]
    operations: tuple[int, int] | None
    seed: int


class PromptsSettings(Strict):
    """Of `make_prompts`. ``ngram``: words in a row that a prompt may not share with an item."""

    tasks: dict[str, int | PromptsSource]
    operations: tuple[int, int] | None
    seed: int
    ngram: int


class CheckpointSettings(Inference):
    """A checkpoint that is run by transformers or vLLM."""

    backend: Literal["transformers", "vllm"]


class ApiSettings(Strict):
    """A model behind an OpenAI-compatible API. ``dtype``: of what an endpoint of kind ``vllm`` serves."""

    backend: Literal["openai"] = "openai"
    model: str
    endpoint: Annotated[UrlEndpoint | VllmEndpoint, Field(discriminator="kind")]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    system: str | None
    extra_body: dict[str, JsonValue]
    think: tuple[str, str]


class DatasetSettings(Source):
    """Completions that a data set holds: its columns (`study.generators.DatasetGenerator`)."""

    backend: Literal["dataset"] = "dataset"
    problem: str
    generations: str
    correct: list[str]
    complete: str | None
    think: tuple[str, str]


BackendSettings = Annotated[CheckpointSettings | ApiSettings | DatasetSettings, Field(discriminator="backend")]


class TracesSettings(Strict):
    """Of `sample_traces`."""

    generator: str
    backend: BackendSettings
    sampling: Sampling
    seed: int


class PredictionsSettings(Strict):
    """Of `evaluate_model`. ``samples_by_task`` overrides the number of samples (avg@16 for AIME, say)."""

    backend: CheckpointSettings
    sampling: Sampling
    samples_by_task: dict[str, int]
    greedy: bool
    seed: int


class TemperaturesSettings(PredictionsSettings):
    """Of `evaluate_temperatures`."""

    temperatures: list[float]


class GenerationRun(Strict):
    """How a job that completes prompts is run. ``generator``: the name under which ``requests`` stand in `run.generators`."""

    batch_size: int
    model: ModelRun
    requests: RequestsRun = RequestsRun()
    generator: str | None = None
