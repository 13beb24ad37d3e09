"""The study: one configuration file as typed, validated settings."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from prefdelta.study import checks
from prefdelta.study.experiments import Experiment
from prefdelta.study.generators import SEED_OF_A_DRAW, DatasetGenerator, Generator, draw_of
from prefdelta.study.judges import Judge
from prefdelta.study.models import Author, Model, World
from prefdelta.study.recipe import Gates, Recipe, Sweep
from prefdelta.study.run import Run, TrainingRun
from prefdelta.study.sampling import Evaluation, Sampling
from prefdelta.study.selections import Selection, SelectionError, parse
from prefdelta.study.sources import ItemsSource, OwnPrompts, ProblemsSource, PromptsSource
from prefdelta.study.strict import Count, Name, Strict


class Cost(Strict):
    """What your machines do and cost. With it, `tables/whatif.csv` has hours and a price of each arm, else tokens only."""

    training_tokens_per_second: float = Field(
        gt=0,
        description="completion tokens that a training reads (`n_tokens` of a result table, by the seconds in "
        "`results/{study}/benchmarks/models/`)",
    )
    evaluation_tokens_per_second: float = Field(
        gt=0,
        description="tokens that an evaluation writes (of the untuned policy: `n_evaluation_tokens` of `whatif.csv`, by the "
        "seconds in `results/{study}/benchmarks/evals/`)",
    )
    price_per_hour: float = Field(ge=0, description="of the machine, in any currency")


class Export(Strict):
    """What `export/` writes besides the files themselves, and whether it goes to the hub."""

    license: str = Field(default="not stated", description="of the pairs and of the checkpoint")
    language: str = Field(default="en", description="of the texts")
    push: bool = Field(default=False, description="upload to the Hugging Face hub with $HF_TOKEN or the login of `hf auth login`")
    namespace: str | None = Field(default=None, description="user or organisation on the hub")
    private: bool = Field(default=True, description="whether the repositories on the hub are")

    @model_validator(mode="after")
    def _consistent(self) -> "Export":
        if self.push and not self.namespace:
            raise ValueError("push needs a namespace: the user or organisation on the hub")
        return self


class Study(Strict):
    """A whole study."""

    study: Name = Field(description="the study's name: the folder under `results/`")
    seed: int = Field(
        default=0,
        description="every sampling, selection and training seed is derived from it and from names, so adding an arm changes no "
        "other",
    )
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers", description="runs checkpoints, for traces and evaluations; a generator may differ"
    )
    operations: tuple[Count, Count] | None = Field(
        default=None, description="fewest and most operations of a micro-world problem (at most 8)"
    )
    suite_operations: dict[str, tuple[Count, Count]] = Field(
        default={}, description="the same of a suite's problems, where they are not the study's"
    )
    world: World = Field(default=World(), description="what the micro-world's authors get wrong in the same way")
    authors: dict[Name, Author] = Field(
        default={}, description="who writes the corpora that models of the micro-world are trained on"
    )
    models: dict[Name, Model] = Field(description="language models")
    prompts: dict[str, Count | PromptsSource] = Field(
        min_length=1,
        description="training prompts by task: a number for a domain of the micro-world (`arithmetic`, `program`, `story`), a "
        "source for `openr1`, a source with `answer_type` for problems of your own under any other name",
    )
    suites: dict[Name, Annotated[dict[str, Count | ItemsSource], Field(min_length=1)]] = Field(
        min_length=1,
        description="suite -> task -> evaluation items: a number, or a source for `math500`, `gsm8k`, `amc`, `aime`, "
        "`theoremqa`, `mmlu_pro`, `livecodebench`, `lm_eval:{any of its tasks}`, and with `answer_type` for problems of your own "
        "under any other name. Answers are about the last suite; a suite's score is the mean over its tasks",
    )
    decontamination_ngram: Count = Field(
        default=8,
        description="a training prompt that equals an evaluation item, or shares this many words in a row with one, is left out "
        "(8: s1, Open R1); `tables/decontamination.csv` counts them, `prompts/dropped.parquet` holds them",
    )
    sampling: Sampling = Field(description="how generators sample; their model's and their own `sampling` override it")
    generators: dict[Name, Generator] = Field(description="who writes traces for the training prompts")
    judges: dict[Name, Judge] = Field(description="who rates traces")
    reference_judge: str | None = Field(
        default=None,
        description="one of `judges` that the others are measured by; it rates all traces that any of them rates",
    )
    policies: list[str] = Field(min_length=1, description="models that are preference-tuned")
    methods: dict[Name, Recipe] = Field(description="training recipes")
    sweeps: dict[Name, Sweep] = Field(
        default={}, description="grids of a method's recipe, for an experiment with `figure: recipes`"
    )
    validation: str | None = Field(
        default=None,
        description="the suite on which the best recipe of a sweep is found; not the last, which answers are about",
    )
    gates: Gates = Field(default=Gates(), description="when a training does not start; another threshold trains nothing again")
    cost: Cost | None = Field(default=None, description="without it, `whatif.csv` has tokens but neither hours nor a price")
    predictor: str | None = Field(
        default=None,
        description="what predicts the gains in `tables/whatif.csv` before anything is trained: another study's "
        "`results/{study}/tables/predictor.json`, which `snakemake --configfile {its configuration} -- {that path}` makes from "
        "all arms that it trains; `tables/prediction.csv` (split `frozen`) has how well they came out",
    )
    replicates: str | None = Field(
        default=None,
        description="the folder of another study's results (`results/{study}`), which has all experiments of this one by name: "
        "`tables/replication.csv` says of each of its claims whether it holds again here, with each policy of this study",
    )
    evaluation: Evaluation = Field(description="how every checkpoint is evaluated")
    smallest_effect: float | None = Field(
        default=None,
        gt=0,
        description="the smallest difference of interest (points): with it, a difference can be found to be within it "
        "(*equivalent*), by two one-sided tests; else *no difference* is never a finding",
    )
    bootstrap: Count = Field(default=2000, description="resamples behind every interval")
    export: Export = Field(default=Export(), description="of pairs and checkpoints")
    experiments: dict[Name, Experiment] = Field(description="questions, each with the arms that answer it")
    run: Run = Field(default=Run(), description="how a machine makes results; an edit makes nothing again")

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

    @model_validator(mode="after")
    def _swept(self) -> "Study":
        """The recipes of sweeps are methods of their own, and a sweep's name in an experiment stands for all of them."""
        if problems := list(checks.sweeps_can_be_made(self)):
            raise ValueError("\n".join(problems))
        members = {name: sweep.recipes(self.methods[sweep.method]) for name, sweep in self.sweeps.items()}
        for recipes in members.values():
            self.methods.update({name: recipe for name, recipe in recipes.items() if name not in self.methods})
        for experiment in self.experiments.values():
            named = [list(members.get(name, [name])) for name in experiment.method]
            experiment.method[:] = dict.fromkeys(name for names in named for name in names)
        return self

    @cached_property
    def swept(self) -> dict[str, str]:
        """method -> the one of whose sweep it is a recipe; itself where it is of none."""
        of_sweeps = {name: sweep.method for sweep in self.sweeps.values() for name in sweep.recipes(self.methods[sweep.method])}
        return {name: of_sweeps.get(name, name) for name in self.methods}

    def training_run(self, method: str) -> TrainingRun:
        """How a method's training runs; a recipe of a sweep without settings of its own has those of the method that is swept."""
        own = self.run.methods
        return own.get(method) or own.get(self.swept[method]) or TrainingRun()

    def draws(self, generator: str) -> list[str]:
        """The independent samples of ``generator``, itself first."""
        return [draw_of(generator, draw) for draw in range(self.generators[generator].draws)]

    @property
    def trained(self) -> dict[str, Experiment]:
        """The experiments that train; a profile only looks at pairs."""
        return {name: experiment for name, experiment in self.experiments.items() if experiment.figure != "profile"}

    @property
    def compared(self) -> dict[str, Experiment]:
        """The experiments whose arms are compared with each other; a sweep of recipes looks for the best."""
        return {name: experiment for name, experiment in self.trained.items() if experiment.figure != "recipes"}

    @property
    def others(self) -> list[str]:
        """The studies whose results this one reads: their files are there, nothing to make."""
        folders = [Path(file).parts for file in (self.predictor, self.replicates) if file]
        return [parts[1] for parts in folders if parts[:1] == ("results",) and len(parts) > 1]

    @property
    def answered_suite(self) -> str:
        """The suite that answers are about: the last one."""
        return list(self.suites)[-1]

    @property
    def validation_suite(self) -> str:
        """The suite on which recipes are chosen: `validation`, which a study with such an experiment has."""
        assert self.validation
        return self.validation

    @cached_property
    def further_draws(self) -> set[str]:
        """The generators that are further draws of another."""
        return {draw for name in self.generators for draw in self.draws(name)[1:]}

    @property
    def own_problems(self) -> dict[str, ProblemsSource]:
        """Key in the configuration -> problems of one's own."""
        sections: dict[str, Mapping[str, object]] = {"prompts": self.prompts}
        sections |= {f"suites.{name}": tasks for name, tasks in self.suites.items()}
        return {
            f"{key}.{task}": source
            for key, tasks in sections.items()
            for task, source in tasks.items()
            if isinstance(source, ProblemsSource)
        }

    @property
    def unanswered(self) -> list[str]:
        """The training prompts without right answers, by their names."""
        return [task for task, source in self.prompts.items() if isinstance(source, OwnPrompts) and source.answer_type == "none"]

    @property
    def knows_correctness(self) -> bool:
        """Whether there are traces of which it is known whether they are right: by a right answer, or the marks of a data set."""
        marked = any(isinstance(generator, DatasetGenerator) and generator.correct for generator in self.generators.values())
        return marked or len(self.unanswered) < len(self.prompts)

    @property
    def n_prompts(self) -> int:
        """Training prompts."""
        return sum(source if isinstance(source, int) else source.n for source in self.prompts.values())

    @property
    def n_full_pairs(self) -> int:
        """Pairs of any (chosen, rejected) where every rating could be read."""
        return self.n_prompts * self.sampling.samples

    def selection(self, name: str, judge: str) -> Selection:
        """Parses a selection of pairs by ``judge``, and checks its size and its criterion. Raises SelectionError."""
        selection, criteria = parse(name), self.judges[judge].rubric.rated.criteria
        if selection.criterion is not None and selection.criterion not in criteria:
            raise SelectionError(
                f"'{name}' goes by '{selection.criterion}', which the judge {judge} does not rate; choose from "
                f"{', '.join(criteria)}{checks.nearest(selection.criterion, criteria)}"
            )
        n_most = self.n_prompts if selection.crosses_samples else self.n_full_pairs
        if selection.k is not None and selection.k > n_most:
            unit = "prompts" if selection.crosses_samples else "pairs"
            raise SelectionError(f"'{name}' asks for {selection.k} {unit}, but this study has {n_most}")
        if selection.reads_correctness and not self.knows_correctness:
            raise SelectionError(
                f"'{name}' goes by which answers are right, and no training prompt has a right answer (`answer_type: none` of "
                f"{', '.join(self.unanswered)}): select by ratings or at random, or give right answers"
            )
        if selection.reads_references and not any(recipe.has_reference for recipe in self.methods.values()):
            raise SelectionError(f"'{name}' goes by stored references, but no method of this study has any (dpo, kto)")
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
    def _consistent(self) -> "Study":
        if problems := [problem for check in checks.ALL for problem in check(self)]:
            raise ValueError("\n".join(problems))
        return self
