"""Where problems come from: domains of the micro-world, and data sets."""

from typing import Literal, get_args

from pydantic import Field

from prefdelta.study.strict import Count, Strict

Domain = Literal["arithmetic", "program", "story"]
DOMAINS: tuple[str, ...] = get_args(Domain)
BENCHMARKS = ("math500", "gsm8k", "amc", "aime", "theoremqa", "mmlu_pro", "livecodebench")
CORPORA = ("openr1",)  # data sets of training prompts


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
