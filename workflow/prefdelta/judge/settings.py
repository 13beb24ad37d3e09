"""Settings of the stage that rates traces."""

from typing import Literal

from prefdelta.study.judges import Judge
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.strict import Strict


class RatingsSettings(Strict):
    """Of `rate_traces`. ``judge`` is the name of ``settings``; ``dtype``: of what an endpoint of kind ``vllm`` serves."""

    judge: str
    settings: Judge
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class RatingsRun(Strict):
    """How requests to the judge are made, and how a model that is served for it is run."""

    requests: RequestsRun
    model: ModelRun
