"""Where problems come from: domains of the micro-world, and data sets."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from prefdelta.study.strict import Count, Strict

Domain = Literal["arithmetic", "program", "story"]
DOMAINS: tuple[str, ...] = get_args(Domain)
BENCHMARKS = ("math500", "gsm8k", "amc", "aime", "theoremqa", "mmlu_pro", "livecodebench")
CORPORA = ("openr1",)  # data sets of training prompts
FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "tsv"}  # of local files of rows
SEPARATORS = {"csv": ",", "tsv": "\t"}


class Source(Strict):
    """A data set of problems: on the Hugging Face hub, or local files of the same schema."""

    repo: str = Field(description="hub id, or a local file or folder")
    revision: str | None = Field(default=None, description="commit; `make pin` prints it")
    config: str | None = Field(default=None, description="configuration of the data set")
    split: str = Field(default="train", description="split of the data set")
    files: list[str] | None = Field(default=None, description="globs of data files, for sets whose loading would need a script")
    n: Count | None = Field(default=None, description="at most this many problems, chosen by a hash of their texts")
    license: str = Field(default="not stated", description="for the cards of what is exported")


class CorpusSource(Source):
    """Training prompts. Further filters of `openr1` are in `tasks/openr1.py`; the paper does not state its own."""

    n: Count = Field(description="at most this many problems, chosen by a hash of their texts; the log says how many there were")
    min_characters: Count = Field(default=20, description="of a problem")
    max_characters: Count = Field(default=4000, description="of a problem")


class BenchmarkSource(Source):
    """Evaluation items."""

    samples: Count | None = Field(default=None, description="answers to each item (avg@k); default: the evaluation's")
    since: str | None = Field(default=None, description="first contest date (`livecodebench`)")
    until: str | None = Field(default=None, description="last contest date (`livecodebench`)")
    include_path: str | None = Field(default=None, description="folder of tasks, instead of lm-eval's own (`lm_eval:`)")
    filter: str | None = Field(default=None, description="of a task that has several (`lm_eval:`)")
    metric: str | None = Field(default=None, description="of a task that has several (`lm_eval:`)")
    columns: dict[Literal["problem", "answer"], str] | None = Field(default=None, description="names of these columns (`aime`)")


AnswerType = Literal["math", "number", "choice", "text", "regex", "none"]
Column = Literal["problem", "answer", "choices", "id", "messages"]


class ProblemsSource(Source):
    """Problems of your own, from CSV, TSV, JSON, JSONL or parquet files, or a set on the hub: docs/your-problems.md."""

    answer_type: AnswerType = Field(
        description="what an answer is compared as: `math`, `number`, `choice` (of options), `text`, `regex` (the right answer "
        "is a pattern), or `none` (there are no right answers: not in a suite)"
    )
    columns: dict[Column, str] = Field(
        default={},
        description="names of the columns that are not called `problem` (or `messages`: one user turn), `answer`, `choices` (a "
        "list of options) and `id` (yours, kept beside the right answer)",
    )
    instruction: str | None = Field(
        default=None, description="what follows each problem, may be empty; default: to put the answer in a box (`none`: nothing)"
    )
    examples: str | None = Field(
        default=None, description="file with the same columns, whose `answer` is a worked answer: they stand before each problem"
    )
    tolerance: float | None = Field(
        default=None, ge=0, lt=1, description="of `number`: how far off is right, as a share of the right number; default: 1e-6"
    )
    answer_as: Literal["letter", "index_from_0", "index_from_1", "text"] | None = Field(
        default=None, description="of `choice`: how the column names the right option; default: as all rows can be read"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ProblemsSource":
        for key, kind in (("tolerance", "number"), ("answer_as", "choice")):
            if getattr(self, key) is not None and self.answer_type != kind:
                raise ValueError(f"`{key}` belongs to `answer_type: {kind}`; this is {self.answer_type}")
        if "choices" in self.columns and self.answer_type != "choice":
            raise ValueError(f"`columns.choices` belongs to `answer_type: choice`; this is {self.answer_type}")
        if {"problem", "messages"} <= set(self.columns):
            raise ValueError("`columns` has either `problem` or `messages`")
        return self


class OwnPrompts(ProblemsSource):
    """Training prompts of your own (any other name, with `answer_type`): docs/your-problems.md."""

    n: Count = Field(description="at most this many problems, chosen by a hash of their texts; the log says how many there were")


class OwnItems(ProblemsSource):
    """Evaluation items of your own (any other name, with `answer_type`): docs/your-problems.md."""

    samples: Count | None = Field(default=None, description="answers to each item (avg@k); default: the evaluation's")


_OWN = {"answer_type", "instruction", "examples", "tolerance", "answer_as"}  # keys that no other source has


def _prompts_kind(value: Any) -> str:
    own = value.keys() & {*_OWN, "columns"} if isinstance(value, dict) else isinstance(value, OwnPrompts)
    return "OwnPrompts" if own else "CorpusSource"


def _items_kind(value: Any) -> str:
    if isinstance(value, dict):
        columns = value.get("columns")
        own = value.keys() & _OWN or (isinstance(columns, dict) and columns.keys() - {"problem", "answer"})
        return "OwnItems" if own else "BenchmarkSource"
    return "OwnItems" if isinstance(value, OwnItems) else "BenchmarkSource"


PromptsSource = Annotated[
    Annotated[CorpusSource, Tag("CorpusSource")] | Annotated[OwnPrompts, Tag("OwnPrompts")], Discriminator(_prompts_kind)
]
ItemsSource = Annotated[
    Annotated[BenchmarkSource, Tag("BenchmarkSource")] | Annotated[OwnItems, Tag("OwnItems")], Discriminator(_items_kind)
]
