"""The study: one configuration file as typed, validated models. `schema` gives the JSON schema that editors can use."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.study.paths import PREDICTOR, SHIPPED
from prefdelta.study.recipe import Gates, Recipe
from prefdelta.study.sampling import BACKENDS, Sampling
from prefdelta.study.selections import Selection, SelectionError, draw_for_seed, parse

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Domain = Literal["arithmetic", "program", "story"]
DOMAINS: tuple[str, ...] = get_args(Domain)
BENCHMARKS = ("math500", "gsm8k", "amc", "aime", "theoremqa", "mmlu_pro", "livecodebench")
CORPORA = ("openr1",)  # data sets of training prompts
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
)


class ConfigError(PrefdeltaError):
    """The configuration is wrong: the message names each key, its value and the choices."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MicroworldModel(Strict):
    """A language model of the micro-world, trained from scratch."""

    family: Literal["qwen3", "llama"]
    hidden_size: Count
    layers: Count
    heads: Count
    authors: dict[str, Annotated[float, Field(gt=0)]] = Field(description="author -> weight in the training corpus")
    domains: list[Domain] = ["arithmetic", "program", "story"]
    steps: Count
    batch_size: Count = 64
    learning_rate: float = Field(gt=0)
    seed: int = 0
    writes: Literal["traces", "ratings"] = Field(default="traces", description="ratings: it is a judge, trained by the oracle")


class PartialSampling(Strict):
    """What a model or a generator samples differently."""

    samples: Count | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    max_new_tokens: Count | None = None


class HubModel(Strict):
    """A checkpoint of the Hugging Face hub, or a local folder in its format."""

    repo: str = Field(description="hub id, or a local folder")
    revision: str | None = Field(default=None, description="commit; `make pin` writes it")
    family: str
    license: str = "not stated"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "bfloat16"
    gpus: int = Field(default=1, ge=0, description="GPUs that inference takes (vLLM's tensor parallel size)")
    max_model_len: Count | None = Field(default=None, description="context in tokens; default: the model's own")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    engine: dict[str, Any] = Field(default={}, description="further arguments of vLLM's engine")
    sampling: PartialSampling = Field(default=PartialSampling(), description="of its traces; evaluations have their own")
    system: str | None = Field(default=None, description="system prompt")
    chat_template_kwargs: dict[str, Any] = Field(default={}, description="switches of the chat template, such as for thinking")
    think: tuple[str, str] = Field(default=("<think>", "</think>"), description="marks around the reasoning; empty: none")


def _kind_of_model(value: Any) -> str:
    return "HubModel" if isinstance(value, HubModel) or (isinstance(value, dict) and "repo" in value) else "MicroworldModel"


Model = Annotated[
    Annotated[MicroworldModel, Tag("MicroworldModel")] | Annotated[HubModel, Tag("HubModel")],
    Discriminator(_kind_of_model),
]


class Source(Strict):
    """A data set of problems: on the Hugging Face hub, or local files of the same schema."""

    repo: str = Field(description="hub id, or a local file or folder")
    revision: str | None = Field(default=None, description="commit; `make pin` writes it")
    config: str | None = None
    split: str = "train"
    files: list[str] | None = Field(default=None, description="globs of data files, for sets that are read by file")
    n: Count | None = Field(default=None, description="at most this many problems, drawn by hash")
    license: str = "not stated"


class CorpusSource(Source):
    """Training prompts."""

    n: Count
    min_characters: Count = 20
    max_characters: Count = 4000


class BenchmarkSource(Source):
    """Evaluation items."""

    samples: Count | None = Field(default=None, description="answers to each item (avg@k); default: the evaluation's")
    since: str | None = Field(default=None, description="first contest date (livecodebench)")
    until: str | None = Field(default=None, description="last contest date (livecodebench)")
    include_path: str | None = Field(default=None, description="folder of tasks, instead of lm-eval's own (lm_eval)")
    filter: str | None = Field(default=None, description="of a task that has several (lm_eval)")
    metric: str | None = Field(default=None, description="of a task that has several (lm_eval)")
    columns: dict[Literal["problem", "answer"], str] | None = Field(default=None, description="names of these columns (aime)")


class Decoding(Sampling):
    """How generators sample unless their model or they themselves say otherwise."""

    batch_size: Count = Field(default=512, description="sequences at a time (transformers, reference)")


class MicroworldEndpoint(Strict):
    """The judge job starts the oracle's server. ``noise``: standard deviation of a level; ``unparsable``: share."""

    kind: Literal["microworld"]
    noise: float = Field(ge=0)
    unparsable: Share = 0.0


class UrlEndpoint(Strict):
    """An OpenAI-compatible endpoint that is already there; the key is read from the environment."""

    kind: Literal["url"]
    base_url: str
    api_key_env: str


class VllmEndpoint(Strict):
    """A vLLM server that the job starts, awaits and ends."""

    kind: Literal["vllm"]
    model: str = Field(description="one of `models`")
    flags: list[str] = Field(default=[], description="further flags of the server")
    patience: float = Field(default=1800, gt=0, description="seconds until it must be healthy")


class TransformersEndpoint(Strict):
    """A server of a small model, without an engine, that the job starts, awaits and ends."""

    kind: Literal["transformers"]
    model: str = Field(description="one of `models`")


class FileEndpoint(Strict):
    """No endpoint, but ratings that are there already, such as those of people."""

    kind: Literal["file"]
    path: str = Field(description="CSV with trace_id, dimension, rating (1 to 5) and, where there are several, repeat (from 0)")


ServedEndpoint = VllmEndpoint | TransformersEndpoint
JudgeEndpoint = MicroworldEndpoint | UrlEndpoint | VllmEndpoint | TransformersEndpoint | FileEndpoint


def _check_batch(batch: bool, endpoint: JudgeEndpoint) -> None:
    if batch and endpoint.kind != "url":
        raise ValueError(f"batch needs a provider's endpoint (kind url), not {endpoint.kind}")


class CheckpointGenerator(Strict):
    """Writes traces for the training prompts. Two generators may share a model: another seed is another sample."""

    model: str
    backend: Literal["transformers", "vllm"] | None = Field(default=None, description="default: the study's")
    seed: int = 0
    draws: Count = Field(default=1, description="independent samples of all prompts: one for each seed of an arm, in turn")
    sampling: PartialSampling = PartialSampling()

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
    endpoint: Annotated[UrlEndpoint | VllmEndpoint, Field(discriminator="kind")]
    batch: bool = Field(default=False, description="use the provider's batch API")
    concurrency: Count = 128
    retries: int = Field(default=5, ge=0)
    timeout: float = Field(default=600, gt=0, description="seconds for one request")
    system: str | None = None
    extra_body: dict[str, Any] = Field(default={}, description="further keys of a request, such as reasoning_effort")
    think: tuple[str, str] = ("<think>", "</think>")
    seed: int = 0
    draws: Count = Field(default=1, description="independent samples of all prompts: one for each seed of an arm, in turn")
    sampling: PartialSampling = PartialSampling()

    @model_validator(mode="after")
    def _consistent(self) -> "OpenAIGenerator":
        _check_batch(self.batch, self.endpoint)
        return self


class DatasetGenerator(Source):
    """Traces that a data set holds already, found by the problem's text."""

    backend: Literal["dataset"]
    tokenizer: str = Field(description="one of `models`: its tokenizer counts the tokens")
    problem: str = Field(default="problem", description="column of the problem")
    generations: str = Field(default="generations", description="column with a list of completions")
    correct: list[str] = Field(
        default=["correctness_math_verify"], description="columns with lists of marks: the first that has one"
    )
    complete: str | None = Field(default="is_reasoning_complete", description="column with a list of marks")
    think: tuple[str, str] = ("<think>", "</think>")
    draws: ClassVar[int] = 1


def _kind_of_generator(value: Any) -> str:
    given = value.get("backend") if isinstance(value, dict) else getattr(value, "backend", None)
    if given == "openai":
        return "OpenAIGenerator"
    return "DatasetGenerator" if given == "dataset" else "CheckpointGenerator"


Generator = Annotated[
    Annotated[CheckpointGenerator, Tag("CheckpointGenerator")]
    | Annotated[OpenAIGenerator, Tag("OpenAIGenerator")]
    | Annotated[DatasetGenerator, Tag("DatasetGenerator")],
    Discriminator(_kind_of_generator),
]


SEED_OF_A_DRAW = 1000


def draw_of(generator: str, draw: int) -> str:
    """The name of a generator's independent sample; the first has the generator's own."""
    return f"{generator}.draw{draw}" if draw else generator


class Judge(Strict):
    """A judge behind an OpenAI-compatible API, or the ratings that a file holds."""

    model: str
    endpoint: Annotated[JudgeEndpoint, Field(discriminator="kind")]
    repeats: Count = Field(default=5, lt=500, description="ratings of each trace")
    choices_per_request: Count = Field(default=1, description="`n` of a request; at most `repeats`")
    separate_dimensions: bool = Field(default=False, description="a request for each dimension")
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    temperature: float = Field(default=0.6, ge=0)
    max_tokens: Count = 256
    batch: bool = Field(default=False, description="use the provider's batch API")
    concurrency: Count = 128
    retries: int = Field(default=5, ge=0)
    timeout: float = Field(default=60, gt=0, description="seconds for one request")
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> "Judge":
        if self.repeats % self.choices_per_request:
            raise ValueError(f"choices_per_request {self.choices_per_request} does not divide repeats {self.repeats}")
        _check_batch(self.batch, self.endpoint)
        return self


class Evaluation(Decoding):
    """How every checkpoint is evaluated: ``samples`` at ``temperature`` (avg@k), and once greedily."""

    greedy: bool = Field(default=True, description="also one greedy answer to each item")
    seed: int = 0


class Cost(Strict):
    """What a study's own machines do and cost, for `whatif.csv`."""

    training_tokens_per_second: float = Field(gt=0, description="completion tokens that training reads")
    evaluation_tokens_per_second: float = Field(gt=0, description="tokens that an evaluation writes")
    price_per_hour: float = Field(ge=0, description="in any currency")


class Export(Strict):
    """What `export/` writes besides the files themselves, and whether it goes to the hub."""

    license: str = Field(default="not stated", description="of the pairs and of the checkpoint")
    language: str = "en"
    push: bool = Field(default=False, description="upload to the Hugging Face hub")
    namespace: str | None = Field(default=None, description="user or organisation on the hub")
    private: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "Export":
        if self.push and not self.namespace:
            raise ValueError("push needs a namespace: the user or organisation on the hub")
        return self


class Experiment(Strict):
    """A question and the arms that answer it: the product of the lists, without arms that meet themselves."""

    title: str
    question: str
    caveat: str
    figure: Literal["ladder", "bars", "sweep", "grid", "profile"]
    chosen: list[str] = Field(min_length=1)
    rejected: list[str] = Field(min_length=1)
    selection: list[str] = Field(default=["full"], min_length=1)
    policy: list[str] = Field(default=[], description="default: the first policy")
    method: list[str] = Field(default=[], description="default: the first method")
    judge: list[str] = Field(default=[], description="default: the first judge")
    seeds: Count = 3
    versus: list[dict[Literal["chosen", "rejected", "selection", "policy", "method", "judge"], str]] = Field(
        default=[],
        description="controls: each arm is compared with the arm that differs from it in these words only; "
        "{k} in a selection stands for the arm's own k",
    )


class Study(Strict):
    """A whole study."""

    study: Name
    seed: int = 0
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers", description="runs checkpoints: traces and evaluations"
    )
    operations: tuple[Count, Count] | None = Field(
        default=None, description="fewest and most operations of a micro-world problem"
    )
    authors: dict[Name, dict[Literal[DIMENSIONS], Share]] = Field(  # type: ignore[valid-type]
        default={}, description="fault probability at each step, by dimension; a missing one is 0"
    )
    models: dict[Name, Model]
    prompts: dict[str, Count | CorpusSource] = Field(min_length=1, description="training prompts by task")
    suites: dict[Name, dict[str, Count | BenchmarkSource]] = Field(description="evaluation items by suite and task")
    decontamination_ngram: Count = Field(
        default=8, description="words in a row that a training prompt may not share with an item"
    )
    sampling: Decoding
    generators: dict[Name, Generator]
    judges: dict[Name, Judge]
    reference_judge: str | None = Field(default=None, description="a judge that the others are measured by; it rates all traces")
    policies: list[str] = Field(min_length=1, description="models that are preference-tuned")
    methods: dict[Name, Recipe]
    gates: Gates = Gates()
    cost: Cost | None = Field(default=None, description="without it, whatif.csv has tokens but neither hours nor a price")
    predictor: str | None = Field(
        default=SHIPPED, description=f"what predicts gains: a predictor.json, or {SHIPPED} for the one that is shipped"
    )
    evaluation: Evaluation
    bootstrap: Count = Field(default=2000, description="resamples of every interval")
    export: Export = Export()
    experiments: dict[Name, Experiment]

    @field_validator("generators")
    @classmethod
    def _draws(cls, generators: dict[str, Generator]) -> dict[str, Generator]:
        """A generator's further draws are generators of their own, with seeds of their own."""
        drawn: dict[str, Generator] = {}
        for name, generator in generators.items():
            drawn[name] = generator
            for draw in range(1, generator.draws):
                if draw_of(name, draw) in generators:
                    raise ValueError(f"'{draw_of(name, draw)}' is the name of a draw of {name}: choose another")
                assert not isinstance(generator, DatasetGenerator)
                update = {"seed": generator.seed + SEED_OF_A_DRAW * draw, "draws": 1}
                drawn[draw_of(name, draw)] = generator.model_copy(update=update)
        return drawn

    def draws(self, generator: str) -> list[str]:
        """The independent samples of ``generator``, itself first."""
        return [draw_of(generator, draw) for draw in range(self.generators[generator].draws)]

    @property
    def trained(self) -> dict[str, Experiment]:
        """The experiments that train; a profile only looks at pairs."""
        return {name: experiment for name, experiment in self.experiments.items() if experiment.figure != "profile"}

    @cached_property
    def further_draws(self) -> set[str]:
        """The generators that are further draws of another."""
        return {draw for name in self.generators for draw in self.draws(name)[1:]}

    @property
    def n_prompts(self) -> int:
        """Training prompts."""
        return sum(source if isinstance(source, int) else source.n for source in self.prompts.values())

    @property
    def n_full_pairs(self) -> int:
        """Pairs of any (chosen, rejected) where every rating could be read."""
        return self.n_prompts * self.sampling.samples

    def selection(self, name: str) -> Selection:
        """Parses a selection and checks its size. Raises SelectionError."""
        selection = parse(name)
        n_most = self.n_prompts if selection.crosses_samples else self.n_full_pairs
        if selection.k is not None and selection.k > n_most:
            unit = "prompts" if selection.crosses_samples else "pairs"
            raise SelectionError(f"'{name}' asks for {selection.k} {unit}, but this study has {n_most}")
        return selection

    def choices(self, word: str) -> list[str]:
        """The names that a word of the lattice can take here."""
        return self._choices[word]

    @cached_property
    def _choices(self) -> dict[str, list[str]]:
        generators = list(self.generators)
        return {
            "policy": self.policies,
            "method": list(self.methods),
            "judge": list(self.judges),
            "chosen": generators,
            "rejected": generators,
            "generator": generators,
            "model": list(self.models),
            "suite": list(self.suites),
            "experiment": list(self.experiments),
            "study": [self.study],
            "split": ["train", *self.suites],
        }

    @model_validator(mode="after")
    def _references(self) -> "Study":
        problems: list[str] = []

        def check(key: str, values: Iterable[str], choices: Iterable[str]) -> None:
            choices, values = list(choices), list(values)
            problems.extend(
                f"{key}: '{value}' is unknown; choose from {', '.join(choices)}" for value in values if value not in choices
            )
            problems.extend(f"{key}: '{value}' is named twice" for value in sorted({v for v in values if values.count(v) > 1}))

        for name, model in self.models.items():
            if isinstance(model, MicroworldModel):
                check(f"models.{name}.authors", model.authors, self.authors)
        for name, generator in self.generators.items():
            if name in self.further_draws:
                continue
            match generator:
                case CheckpointGenerator():
                    check(f"generators.{name}.model", [generator.model], self.models)
                case DatasetGenerator():
                    check(f"generators.{name}.tokenizer", [generator.tokenizer], self.models)
                case OpenAIGenerator(endpoint=VllmEndpoint(model=served)):
                    check(f"generators.{name}.endpoint.model", [served], self.models)
            if "_vs_" in name:
                problems.append(f"generators.{name}: a name can't contain '_vs_', which separates the sides in paths")
        for name, judge in self.judges.items():
            if isinstance(judge.endpoint, ServedEndpoint):
                check(f"judges.{name}.endpoint.model", [judge.endpoint.model], self.models)
        check("reference_judge", [self.reference_judge] if self.reference_judge else [], self.judges)
        if self.predictor and Path(self.predictor) == Path(PREDICTOR.format(study=self.study)):
            problems.append("predictor: that of the study itself is made from its trained arms; give another study's")
        check("policies", self.policies, self.models)
        raters = {name for name, model in self.models.items() if isinstance(model, MicroworldModel) and model.writes == "ratings"}
        writers = {f"policies: '{name}'": name for name in self.policies}
        writers |= {
            f"generators.{name}.model: '{generator.model}'": generator.model
            for name, generator in self.generators.items()
            if isinstance(generator, CheckpointGenerator) and name not in self.further_draws
        }
        problems.extend(f"{where} writes ratings, not traces" for where, name in writers.items() if name in raters)
        problems.extend(
            f"judges.{name}.endpoint.model: '{served}' writes traces, not ratings"
            for name, judge in self.judges.items()
            if isinstance(judge.endpoint, TransformersEndpoint)
            and isinstance(self.models.get(served := judge.endpoint.model), MicroworldModel)
            and served not in raters
        )
        if "base" in self.methods:
            problems.append("methods.base: 'base' is the untuned policy; choose another name")
        tasks = [task for suite in self.suites.values() for task in suite]
        shared = sorted({task for task in tasks if tasks.count(task) > 1})
        problems.extend(f"suites: '{task}' is in two suites; an item belongs to one" for task in shared)
        sources = {"prompts": (self.prompts, CORPORA)}
        sources |= {f"suites.{name}": (suite, BENCHMARKS) for name, suite in self.suites.items()}  # type: ignore[misc]
        for key, (by_task, sets) in sources.items():
            names = [task for task in by_task if not task.startswith("lm_eval:") or key == "prompts"]
            check(key, names, [*DOMAINS, *sets, *([] if key == "prompts" else ["lm_eval:{task}"])])
            for task, source in by_task.items():
                if (task in DOMAINS) != isinstance(source, int):
                    problems.append(
                        f"{key}.{task}: " + ("a number of problems" if task in DOMAINS else "a source with `repo`") + " is needed"
                    )
        if "train" in self.suites:
            problems.append("suites.train: 'train' is the split of the training prompts; choose another name")
        if self.operations is None:
            if {*self.prompts, *tasks} & {*DOMAINS} or any(isinstance(model, MicroworldModel) for model in self.models.values()):
                problems.append("operations: [fewest, most] operations of a problem are needed by the micro-world")
        elif self.operations[0] > self.operations[1] or self.operations[1] > 8:
            problems.append(f"operations: {list(self.operations)} must be [fewest, most] with most at least fewest, at most 8")
        for name, experiment in self.experiments.items():
            if name in RESERVED:
                problems.append(f"experiments.{name}: the name is taken by a table that every study has")
            for word in ("chosen", "rejected", "policy", "method", "judge"):
                check(f"experiments.{name}.{word}", getattr(experiment, word), self.choices(word))
            check(f"experiments.{name}.selection", experiment.selection, experiment.selection)
            for selection in experiment.selection:
                try:
                    self.selection(draw_for_seed(selection, 0))
                except SelectionError as error:
                    problems.append(f"experiments.{name}.selection: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_study(config: dict[str, Any], files: Iterable[Path | str] = ()) -> Study:
    """The study of a configuration that Snakemake has read from ``files``.

    Raises ConfigError for unknown keys and names, wrong values, and keys that stand twice in a file (YAML would silently keep
    the last one).
    """
    duplicates = [message for file in files for message in _duplicate_keys(Path(file))]
    try:
        if duplicates:
            raise ConfigError("\n".join(duplicates))
        return Study.model_validate(config)
    except ValidationError as error:
        messages = []
        for problem in error.errors():
            key, member = _key(problem["loc"], config)
            if member and isinstance(problem["input"], int | dict) and problem["type"] in ("int_type", "model_type"):
                continue  # of a union of a number and a mapping, the one that was not meant
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                text = f"unknown key; choose from {', '.join(_keys_at(problem['loc'][:-1]))}"
            given = "" if isinstance(problem["input"], dict | Study) else f" (given: {problem['input']!r})"
            messages.append(f"{key}: {text}{given}" if key else text)
        raise ConfigError("\n".join(messages)) from None


def _key(place: tuple[int | str, ...], config: Any) -> tuple[str, bool]:
    """The key of ``config`` at pydantic's ``place`` of an error, and whether the place ends at a member of a union.

    Pydantic's places name members of unions, too, which are no keys of the file.
    """
    key: list[str] = []
    member = False
    for number, part in enumerate(place, start=1):
        here = part in config if isinstance(config, dict) else isinstance(config, list) and part in range(len(config))
        member = not here and (part in MEMBERS or number < len(place) or not isinstance(config, dict | list))
        if here:
            config = config[part]
        if not member:
            key.append(str(part))
    return ".".join(key), member


# What pydantic calls members of unions and keys of mappings in the place of an error.
MEMBERS = {"[key]", "constrained-int", "int", "CorpusSource", "BenchmarkSource", "HubModel", "MicroworldModel"}
MEMBERS |= {"CheckpointGenerator", "OpenAIGenerator", "DatasetGenerator", "microworld", "url", "vllm", "transformers", "file"}


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that a mapping at ``place`` of a configuration can have."""

    def within(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in get_args(annotation) for model in within(part)]

    models: list[type[BaseModel]] = [Study]
    for part in place:
        fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
        if fields:
            models = within(fields[0].annotation)
        else:  # a member of a union, or a name that the person gave
            named = {model: (model.__name__, model.__name__.removesuffix("Endpoint").lower()) for model in models}
            models = [model for model in models if part in named[model]] or models
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _duplicate_keys(file: Path) -> list[str]:
    messages = []

    def walk(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = f"{path}{key.value}"
                if key.value in seen and key.value != "<<":
                    messages.append(f"{name}: stands twice in {file} (again in line {key.start_mark.line + 1})")
                seen.add(key.value)
                walk(value, f"{name}.")
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, f"{path}{index}.")

    walk(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), "")
    return messages


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=2))
