"""Generation: one signature, `complete`, behind which every backend stands; requests and completions as all of them know them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefdelta.generate.settings import BackendSettings, GenerationRun
from prefdelta.run.by_name import load
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.sampling import Sampling


class GenerateError(PrefdeltaError):
    """A backend can't complete what it was asked; the message says why."""


@dataclass(frozen=True)
class Request:
    """A prompt (a user message) and how it is to be completed."""

    prompt_id: str
    prompt: str
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """One completion. ``n_tokens`` counts all generated tokens, the end token too.

    ``text`` is the whole completion as a policy would be trained on it; ``reasoning`` and ``response`` are its two parts.
    ``finish_reason`` is 'stop' or, at the token limit, 'length'. ``correct`` is set only where the source has graded it already.
    """

    text: str
    reasoning: str
    response: str
    n_tokens: int
    finish_reason: Literal["stop", "length"]
    correct: bool | None = None


def complete(
    requests: list[Request],
    *,
    settings: BackendSettings,
    run: GenerationRun,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: Path,
) -> list[list[Completion]]:
    """The completions of each request, in the order of ``requests``, from one load of the model.

    The module ``backend_{name}`` of this package has a function of this name and signature. ``checkpoint``: a folder in
    transformers' format, for backends that run one. Raises GenerateError.
    """
    backend = load(__package__, f"backend_{settings.backend}")
    found: list[list[Completion]] = backend.complete(
        requests, settings=settings, run=run, checkpoint=checkpoint, seed=seed, threads=threads, log_file=log_file
    )
    return found


def check_room(requests: list[Request], encoded: list[list[int]], limit: int | None) -> None:
    """Raises GenerateError where ``limit``, a run setting of vLLM, could cut what follows one of the prompts in ``encoded``."""
    needed = [len(ids) + request.sampling.max_new_tokens for request, ids in zip(requests, encoded, strict=True)]
    most = max(needed)
    if limit is not None and most > limit:
        raise GenerateError(
            f"{sum(tokens > limit for tokens in needed)} of {len(needed)} requests could need more than max_model_len = {limit} "
            f"tokens, prompt and completion together; the longest is {requests[needed.index(most)].prompt_id} with {most}: raise "
            "run.models.<its name>.max_model_len, or leave it out for the model's own"
        )


def completion(
    text: str,
    n_tokens: int,
    finish_reason: Literal["stop", "length"],
    think: tuple[str, str],
) -> Completion:
    """A completion from a raw ``text``, its reasoning told from its response by the marks ``think`` = (open, close).

    The response is what follows the last close mark. A text without one is all reasoning where it was cut off ('length'), and all
    response else. With an empty open mark the close mark is part of the text (the micro-world's final statement). Otherwise the
    parts are written in one way for all models, ``<think>\\n...\\n</think>\\n\\n...``, since a policy could not read another
    model's special tokens. With an empty close mark nothing is reasoning.
    """
    opening, closing = think
    if not closing:
        return Completion(text, "", text, n_tokens, finish_reason)
    before, found, after = text.rpartition(closing)
    if not found:
        before, after = (text, "") if finish_reason == "length" and opening else ("", text)
    if not opening:
        return Completion(text, before, after, n_tokens, finish_reason)
    return from_parts(before.strip().removeprefix(opening).strip(), after.strip(), n_tokens, finish_reason)


def from_parts(reasoning: str, response: str, n_tokens: int, finish_reason: Literal["stop", "length"]) -> Completion:
    """A completion whose reasoning and response came apart already (an API's ``reasoning_content``)."""
    if not reasoning:
        return Completion(response, "", response, n_tokens, finish_reason)
    thought = f"<think>\n{reasoning}\n"
    if not response and finish_reason == "length":
        return Completion(thought, reasoning, "", n_tokens, finish_reason)
    return Completion(f"{thought}</think>\n\n{response}", reasoning, response, n_tokens, finish_reason)
