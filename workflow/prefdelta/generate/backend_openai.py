"""Generation by an OpenAI-compatible endpoint: a provider's, directly or by its Batch API, or a vLLM server of the job's own."""

import logging
from collections import Counter
from pathlib import Path

from prefdelta.checkpoints.load import load_tokenizer
from prefdelta.endpoint import batch, client
from prefdelta.endpoint.answers import Body, Choice
from prefdelta.endpoint.plain import plainly
from prefdelta.endpoint.servers import connected
from prefdelta.endpoint.serving import EndpointError, Served
from prefdelta.endpoint.spending import Spending
from prefdelta.endpoint.store import Store
from prefdelta.generate.chat import encode
from prefdelta.generate.completions import Completion, GenerateError, Request, check_room, completion, from_parts
from prefdelta.generate.settings import ApiSettings, GenerationRun
from prefdelta.study.endpoints import VllmEndpoint
from prefdelta.study.models import Chat

log = logging.getLogger(__name__)


def complete(
    requests: list[Request],
    *,
    settings: ApiSettings,
    run: GenerationRun,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: Path,
) -> list[list[Completion]]:
    """`generate.complete` over the chat API, each completion by a request of its own, so that its tokens are known.

    ``checkpoint`` is what an endpoint of kind ``vllm`` serves. Reasoning that comes apart from the response is kept apart. A
    completion that the endpoint declines, filters or leaves empty is left out, so a prompt may have fewer. Raises GenerateError.
    """
    if isinstance(settings.endpoint, VllmEndpoint):
        _check_room(requests, settings, checkpoint, run.model.max_model_len)
    asked = [(index, sample) for index, request in enumerate(requests) for sample in range(request.sampling.samples)]
    found: dict[int, Completion] = {}
    dropped: Counter[str] = Counter()

    def body(number: int) -> Body:
        index, sample = asked[number]
        sampling = requests[index].sampling
        system = [{"role": "system", "content": settings.system}] if settings.system else []
        content: Body = {"model": settings.model, "messages": [*system, {"role": "user", "content": requests[index].prompt}]}
        content |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        if sampling.top_k:  # not OpenAI's, but vLLM, SGLang and others know it
            content["top_k"] = sampling.top_k
        return {**content, "seed": client.request_seed(seed, requests[index].prompt) + sample, **settings.extra_body}

    def answered(number: int, choices: list[Choice]) -> None:
        made = _completion(choices[0], settings.think)
        if isinstance(made, str):
            dropped[made] += 1
        else:
            found[number] = made

    try:
        with connected(
            settings.endpoint, Served(settings.model, checkpoint, settings.dtype, run.model), threads=threads, log_file=log_file
        ) as connection:
            ask = plainly(batch.ask if run.requests.batch else client.ask, settings.endpoint, checkpoint)
            spending = Spending(settings.model, run.requests, f"run.generators.{run.generator}")
            ask(connection, len(asked), body, answered, store=Store(connection.identity, spending), run=run.requests)
            spending.tell()
    except EndpointError as error:
        raise GenerateError(f"{settings.model}: {error}") from None
    for reason, count in dropped.items():
        log.warning("%d of %d completions left out: %s", count, len(asked), reason)
    results: list[list[Completion]] = [[] for _ in requests]
    for number, made in sorted(found.items(), key=lambda item: item[0]):
        results[asked[number][0]].append(made)
    return results


def _check_room(requests: list[Request], settings: ApiSettings, checkpoint: Path | None, limit: int | None) -> None:
    """Raises GenerateError where a server of vLLM with the context ``limit`` would refuse a request."""
    if limit is not None:
        chat = Chat(system=settings.system, chat_template_kwargs=settings.extra_body.get("chat_template_kwargs", {}))
        tokenizer = load_tokenizer(checkpoint, served=True)
        check_room(requests, encode(tokenizer, [request.prompt for request in requests], chat), limit)


def _completion(choice: Choice, think: tuple[str, str]) -> Completion | str:
    """The completion of a choice, or why it is none. Raises GenerateError where the endpoint does not count tokens."""
    if choice.declined:
        return choice.declined
    # Surrogates are what JSON can hold and a table can't.
    content, reasoning = ((text or "").encode(errors="replace").decode() for text in (choice.content, choice.reasoning))
    if not content.strip() and not reasoning.strip():
        return "empty"
    if choice.n_tokens is None:
        raise GenerateError("the endpoint does not say how many tokens it wrote (`usage.completion_tokens`)")
    ended = choice.finish_reason or "stop"
    if reasoning:
        return from_parts(reasoning.strip(), content.strip(), choice.n_tokens, ended)
    return completion(content, choice.n_tokens, ended, think)
