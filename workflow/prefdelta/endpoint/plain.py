"""Texts for a vLLM server, which makes the tokens itself: to it, the letters of a control token in a message are that token."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefdelta.endpoint.answers import Body
from prefdelta.study.endpoints import AskedEndpoint, VllmEndpoint


def plainly(ask: Callable[..., None], endpoint: AskedEndpoint, checkpoint: Path | None) -> Callable[..., None]:
    """``ask`` (`client.ask`), whose bodies hold no control token of the ``checkpoint`` that an ``endpoint`` of kind vllm serves.

    Each has a character of no width in it (`control.broken`). A server of kind ``transformers`` tokenises texts as texts; what a
    provider does with them is its own. Raises CheckpointError.
    """
    if not isinstance(endpoint, VllmEndpoint):
        return ask
    from prefdelta.checkpoints.control import broken, control
    from prefdelta.checkpoints.load import load_tokenizer

    tokens = control(load_tokenizer(checkpoint, served=True))

    def plain(body: Callable[[int], Body], number: int) -> Body:
        made = body(number)
        return {**made, "messages": [{**message, "content": broken(message["content"], tokens)} for message in made["messages"]]}

    def asked(connection: Any, n: int, body: Callable[[int], Body], *rest: Any, **options: Any) -> None:
        ask(connection, n, partial(plain, body), *rest, **options)

    return asked
