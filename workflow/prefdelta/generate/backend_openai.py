"""Generation by an OpenAI-compatible endpoint: a provider's, directly or by its Batch API, or a vLLM server of the job's own."""

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefdelta.endpoint import batch, client
from prefdelta.endpoint.client import Body, Choice
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store
from prefdelta.generate.completions import Completion, GenerateError, Request, completion, from_parts

log = logging.getLogger(__name__)


def complete(
    requests: list[Request], *, settings: dict[str, Any], checkpoint: Path | None, seed: int, threads: int, log_file: str
) -> list[list[Completion]]:
    """`generate.complete` over the chat API, each completion by a request of its own, so that its tokens are known.

    Settings: ``model`` (its name in requests), ``endpoint`` (see `client.connected`), ``batch``, ``concurrency``, ``retries``,
    ``timeout``, ``system`` (a system prompt or None), ``extra_body`` (further keys of a request, such as reasoning_effort),
    ``think``. ``checkpoint`` is what an endpoint of kind ``vllm`` serves. Reasoning that comes apart from the response is kept
    apart. A completion that the endpoint declines, filters or leaves empty is left out, so a prompt may have fewer. Raises
    GenerateError.
    """
    asked = [(index, sample) for index, request in enumerate(requests) for sample in range(request.sampling.samples)]
    found: dict[int, Completion] = {}
    dropped: Counter[str] = Counter()

    def body(number: int) -> Body:
        index, sample = asked[number]
        sampling = requests[index].sampling
        system = [{"role": "system", "content": settings["system"]}] if settings["system"] else []
        content: Body = {"model": settings["model"], "messages": [*system, {"role": "user", "content": requests[index].prompt}]}
        content |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        if sampling.top_k:  # not OpenAI's, but vLLM, SGLang and others know it
            content["top_k"] = sampling.top_k
        return {**content, "seed": client.request_seed(seed, requests[index].prompt) + sample, **settings["extra_body"]}

    def answered(number: int, choices: list[Choice]) -> None:
        made = _completion(choices[0], settings["think"])
        if isinstance(made, str):
            dropped[made] += 1
        else:
            found[number] = made

    try:
        with client.connected(
            settings["endpoint"], model=settings["model"], checkpoint=checkpoint, threads=threads, log_file=log_file
        ) as connection:
            ask = batch.ask if settings["batch"] else partial(client.ask, concurrency=settings["concurrency"])
            shared = {"retries": settings["retries"], "timeout": settings["timeout"]}
            ask(connection, len(asked), body, answered, store=Store(connection.identity), **shared)
    except EndpointError as error:
        raise GenerateError(f"{settings['model']}: {error}") from None
    for reason, count in dropped.items():
        log.warning("%d of %d completions left out: %s", count, len(asked), reason)
    results: list[list[Completion]] = [[] for _ in requests]
    for number, made in sorted(found.items(), key=lambda item: item[0]):
        results[asked[number][0]].append(made)
    return results


def _completion(choice: Choice, think: tuple[str, str]) -> Completion | str:
    """The completion of a choice, or why it is none. Raises GenerateError where the endpoint does not count tokens."""
    if choice.declined:
        return choice.declined
    if choice.finish_reason not in ("stop", "length"):
        return f"ended with '{choice.finish_reason}'"
    # Surrogates are what JSON can hold and a table can't.
    content, reasoning = ((text or "").encode(errors="replace").decode() for text in (choice.content, choice.reasoning))
    if not content.strip() and not reasoning.strip():
        return "empty"
    if choice.n_tokens is None:
        raise GenerateError("the endpoint does not say how many tokens it wrote (`usage.completion_tokens`)")
    finish_reason: Literal["stop", "length"] = "length" if choice.finish_reason == "length" else "stop"
    if reasoning:
        return from_parts(reasoning.strip(), content.strip(), choice.n_tokens, finish_reason)
    return completion(content, choice.n_tokens, finish_reason, think)
