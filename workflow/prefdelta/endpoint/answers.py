"""What servers answer: the choices of a chat completion, whichever server wrote it."""

import functools
import logging
import re
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

Body = dict[str, Any]  # of a request


@dataclass(frozen=True)
class Choice:
    """One choice of an answer. ``n_tokens``: as the server counts, if it does. ``declined``: why there is no answer.

    ``finish_reason`` is None where the server tells none: then an answer counts as complete where nothing speaks against it.
    """

    content: str | None = None
    reasoning: str = ""
    finish_reason: Literal["stop", "length"] | None = "stop"
    n_tokens: int | None = None
    declined: str | None = None


def choices(response: Any) -> list[Choice]:
    """The choices of a chat completion. Raises ValueError where ``response`` is none, or the server failed amidst it."""
    try:
        found = response["choices"]
        n_tokens = tokens(response)[1] if len(found) == 1 else None  # it is the sum over all choices
        made = [_choice(choice, n_tokens) for choice in found]
    except (AttributeError, KeyError, TypeError):
        made = []
    if not made:
        raise ValueError(f"not a chat completion: {str(response)[:300]}")
    return made


def stored_choices(response: Any) -> list[Choice] | None:
    """The choices of what the store has; None where that is nothing, or no chat completion."""
    try:
        return None if response is None else choices(response)
    except ValueError:
        return None


def tokens(response: Any) -> tuple[int | None, int | None]:
    """How many tokens the server says that it has read and written."""
    usage = response.get("usage")
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None, None]
    read, written = (count if type(count) is int and count >= 0 else None for count in counts)
    return read, written


# How servers say, in small letters, that an answer came to its end ...
_STOP = {"stop", "stop_sequence", "stop_token", "stop_string", "stop_str", "stopstringfound", "eos", "eos_token", "eosfound"}
_STOP |= {"end", "end_turn", "end_of_turn", "end_of_text", "endoftext", "complete", "completed", "finished", "done"}
# ... or that it was cut: at so many tokens, after so many seconds ...
_LENGTH = re.compile(r"length|limit|max|trunc|incomplete|(not|un)_?finished|exceeded")
# ... that there is none ...
_FILTERED = (
    "content_filter",
    "content filter",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "guardrail",
    "error_toxic",
)
_NONE = {"tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call", "pause_turn"}
# ... or that they have failed.
_FAILED = {"error", "abort", "aborted", "canceled", "cancelled", "insufficient_system_resource", "engine_error", "timeout"}


def _choice(choice: dict[str, Any], n_tokens: int | None) -> Choice:
    # Some servers tell none at all. Any other that is not known to be an end may be a cut.
    told = str(choice.get("finish_reason") or "stop")
    reason = told.lower()
    # What is filtered may have no message at all.
    message = choice.get("message") or {} if reason.startswith(_FILTERED) else choice["message"]
    if reason in _FAILED or choice.get("error"):
        raise ValueError(f"the server failed amidst an answer: {str(choice.get('error') or told)[:300]}")
    content, thought = _texts(message.get("content"))
    # vLLM and OpenRouter say `reasoning`, DeepSeek and SGLang `reasoning_content`, Mistral a part of the content.
    apart = message.get("reasoning") or message.get("reasoning_content")
    reasoning = "".join(text for text in _texts(apart) if text) or thought
    declined = None
    if message.get("refusal") or reason == "refusal":
        declined = "refused by the model"
    elif reason.startswith(_FILTERED) or reason == "content_filtered":
        declined = "stopped by a content filter"
    elif reason in _STOP:
        pass
    elif reason not in _NONE and _LENGTH.search(reason):
        return Choice(content, reasoning, "length", n_tokens)
    else:
        declined = f"ended with '{told[:60]}'"
        if reason not in _NONE:
            _unknown(told[:60])
    return Choice(content, reasoning, "stop" if choice.get("finish_reason") else None, n_tokens, declined)


def _texts(content: Any) -> tuple[str | None, str]:
    """The response and the reasoning of a content: a text, or parts that say which of them they are."""
    if isinstance(content, str):
        return content, ""
    response, thought = [], []
    for part in [content] if isinstance(content, dict) else content if isinstance(content, list) else []:
        if isinstance(part, str):
            response.append(part)
        elif isinstance(part, dict):
            inner = next((part[key] for key in ("text", "thinking", "reasoning", "summary", "content") if part.get(key)), None)
            said, reasoned = _texts(inner)
            if str(part.get("type")).startswith(("thinking", "reasoning")):
                said, reasoned = None, (said or "") + reasoned
            response.append(said or "")
            thought.append(reasoned)
    return "".join(response) if response else None, "".join(thought)


@functools.cache
def _unknown(reason: str) -> None:
    log.warning("an answer ended with '%s', which is not known: it does not count, for it may have been cut", reason)
