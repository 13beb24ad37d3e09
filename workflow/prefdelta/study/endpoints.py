"""OpenAI-compatible endpoints, and what stands in for one."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from prefdelta.study.strict import Share, Strict


class MicroworldEndpoint(Strict):
    """The job starts the oracle's server."""

    kind: Literal["microworld"]
    noise: float = Field(ge=0, description="standard deviation of a level")
    unparsable: Share = Field(default=0.0, description="share of answers that are cut short")


class UrlEndpoint(Strict):
    """Any OpenAI-compatible endpoint that is already there."""

    kind: Literal["url"]
    base_url: str = Field(description="such as https://api.openai.com/v1")
    api_key_env: str = Field(description="the environment variable that holds the key")
    omit: list[str] = Field(
        default=[],
        description="keys of a request that the server does not take, such as temperature: left out. `n` is asked for in single "
        "requests, `max_tokens` as max_completion_tokens; without `seed`, repeats are requests of their own still",
    )

    @model_validator(mode="after")  # of the whole, as an error of one field would show what is wrong with it
    def _public(self) -> "UrlEndpoint":
        try:
            url = urlsplit(self.base_url)
            known = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError:  # whose words would show it
            known = False
        if not known:
            raise ValueError("base_url must be an address, such as https://api.openai.com/v1")
        if "@" in url.netloc or "?" in self.base_url or "#" in self.base_url:
            raise ValueError(
                "base_url must hold no user, password or parameters, since it is written into results: put the key into the "
                f"environment variable {self.api_key_env}"
            )
        if needed := {"model", "messages"} & set(self.omit):
            raise ValueError(f"omit: no request can do without {' and '.join(sorted(needed))}")
        return self


class VllmEndpoint(Strict):
    """A vLLM server that the job starts, awaits and ends."""

    kind: Literal["vllm"]
    model: str = Field(description="one of `models`")
    flags: list[str] = Field(
        default=[], description="further flags of the server that change what it writes; others belong to `run.models`"
    )


class TransformersEndpoint(Strict):
    """A server without an engine, in float32 on the CPU, for a small model; the job starts, awaits and ends it."""

    kind: Literal["transformers"]
    model: str = Field(description="one of `models`")


class FileEndpoint(Strict):
    """No endpoint, but ratings that are there already, such as those of people.

    A trace without a line is not rated; a dimension that a rated trace lacks is missing. The judge's other keys mean nothing.
    """

    kind: Literal["file"]
    path: str = Field(
        description="CSV with a line for each rating: `trace_id`, `dimension`, `rating` (both as the `rubric` has them) and, "
        "where a trace was rated several times, `repeat` (from 0)"
    )


ServedEndpoint = VllmEndpoint | TransformersEndpoint
AskedEndpoint = MicroworldEndpoint | UrlEndpoint | VllmEndpoint | TransformersEndpoint
JudgeEndpoint = AskedEndpoint | FileEndpoint
