"""The study: one configuration file as typed, validated models. `schema` gives the JSON schema that editors can use."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prefdelta.errors import PrefdeltaError
from prefdelta.recipe import Recipe
from prefdelta.rubric import DIMENSIONS
from prefdelta.selection import Selection, SelectionError, draw_for_seed, parse

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Domain = Literal["arithmetic", "program", "story"]
RESERVED = ("capability", "generator_level_delta", "coverage")  # tables that every study has beside its experiments


class ConfigError(PrefdeltaError):
    """The configuration is wrong: the message names each key, its value and the choices."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Strict):
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


class Generator(Strict):
    """Writes traces for the training prompts. Two generators may share a model: another seed is another sample."""

    model: str
    seed: int = 0


class Sampling(Strict):
    """How every generator samples."""

    samples: Count = Field(description="traces for each prompt")
    temperature: float = Field(gt=0)
    max_new_tokens: Count
    batch_size: Count = 512


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


class Judge(Strict):
    """A judge behind an OpenAI-compatible API."""

    model: str
    endpoint: Annotated[MicroworldEndpoint | UrlEndpoint, Field(discriminator="kind")]
    repeats: Count = Field(default=5, description="ratings of each trace")
    choices_per_request: Count = Field(default=1, description="`n` of a request; at most `repeats`")
    temperature: float = Field(default=0.6, ge=0)
    max_tokens: Count = 256
    concurrency: Count = 32
    retries: int = Field(default=5, ge=0)
    timeout: float = Field(default=60, gt=0, description="seconds for one request")
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> "Judge":
        if self.repeats % self.choices_per_request:
            raise ValueError(f"choices_per_request {self.choices_per_request} does not divide repeats {self.repeats}")
        return self


class Evaluation(Strict):
    """How every checkpoint is evaluated: ``samples`` at ``temperature`` (avg@k), and once greedily."""

    samples: Count
    temperature: float = Field(gt=0)
    max_new_tokens: Count
    batch_size: Count = 512
    seed: int = 0


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
    operations: tuple[Count, Count] = Field(description="fewest and most operations of a micro-world problem")
    authors: dict[Name, dict[Literal[DIMENSIONS], Share]] = Field(  # type: ignore[valid-type]
        description="fault probability at each step, by dimension; a missing one is 0"
    )
    models: dict[Name, Model]
    prompts: dict[Domain, Count] = Field(description="training prompts by domain")
    suites: dict[Name, dict[Domain, Count]] = Field(description="evaluation items by suite and domain")
    sampling: Sampling
    generators: dict[Name, Generator]
    judges: dict[Name, Judge]
    policies: list[str] = Field(min_length=1, description="models that are preference-tuned")
    methods: dict[Name, Recipe]
    evaluation: Evaluation
    bootstrap: Count = Field(default=2000, description="resamples of every interval")
    experiments: dict[Name, Experiment]

    @property
    def n_full_pairs(self) -> int:
        """Pairs of any (chosen, rejected) where every rating could be read."""
        return sum(self.prompts.values()) * self.sampling.samples

    def selection(self, name: str) -> Selection:
        """Parses a selection and checks its size. Raises SelectionError."""
        selection = parse(name)
        n_most = sum(self.prompts.values()) if selection.crosses_samples else self.n_full_pairs
        if selection.k is not None and selection.k > n_most:
            unit = "prompts" if selection.crosses_samples else "pairs"
            raise SelectionError(f"'{name}' asks for {selection.k} {unit}, but this study has {n_most}")
        return selection

    def choices(self, word: str) -> list[str]:
        """The names that a word of the lattice can take here."""
        return {
            "policy": self.policies,
            "method": list(self.methods),
            "judge": list(self.judges),
            "chosen": list(self.generators),
            "rejected": list(self.generators),
            "generator": list(self.generators),
            "model": list(self.models),
            "suite": list(self.suites),
            "experiment": list(self.experiments),
            "study": [self.study],
            "split": ["train", *self.suites],
        }[word]

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
            check(f"models.{name}.authors", model.authors, self.authors)
            if model.hidden_size % (2 * model.heads):
                problems.append(f"models.{name}.heads: {model.heads} heads need a hidden_size divisible by {2 * model.heads}")
        for name, generator in self.generators.items():
            check(f"generators.{name}.model", [generator.model], self.models)
            if "_vs_" in name:
                problems.append(f"generators.{name}: a name can't contain '_vs_', which separates the sides in paths")
        check("policies", self.policies, self.models)
        if "base" in self.methods:
            problems.append("methods.base: 'base' is the untuned policy; choose another name")
        domains = [domain for suite in self.suites.values() for domain in suite]
        shared = sorted({domain for domain in domains if domains.count(domain) > 1})
        problems.extend(f"suites: '{domain}' is in two suites; an item belongs to one" for domain in shared)
        if "train" in self.suites:
            problems.append("suites.train: 'train' is the split of the training prompts; choose another name")
        if self.operations[0] > self.operations[1] or self.operations[1] > 8:
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
            key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                text = f"unknown key; choose from {', '.join(_keys_at(problem['loc'][:-1]))}"
            given = "" if isinstance(problem["input"], dict | Study) else f" (given: {problem['input']!r})"
            messages.append(f"{key}: {text}{given}" if key else text)
        raise ConfigError("\n".join(messages)) from None


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that a mapping at ``place`` of a configuration can have."""

    def within(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in get_args(annotation) for model in within(part)]

    models: list[type[BaseModel]] = [Study]
    for part in place:
        fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
        if fields:  # else a name that the person gave, or the kind of a union
            models = within(fields[0].annotation)
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
