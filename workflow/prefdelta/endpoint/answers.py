"""What servers answer: the choices of a chat completion, whichever server wrote it."""

import functools
import logging
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

Body = dict[str, Any]  # of a request


@dataclass(frozen=True)
class Choice:
    """One choice of an answer. ``n_tokens``: as the server counts, if it does. ``declined``: why there is no answer."""

    content: str | None = None
    reasoning: str = ""
    finish_reason: Literal["stop", "length"] = "stop"
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
_STOP = {"stop", "stop_sequence", "eos", "eos_token", "end_turn", "end_of_turn", "complete", "completed", "eosfound"}
_STOP |= {"stopstringfound", "finished", "done"}
# ... or to a limit of tokens ...
_LENGTH = {"length", "max_tokens", "max_new_tokens", "max_output_tokens", "max_length", "model_length", "token_limit"}
_LENGTH |= {"model_context_window_exceeded", "context_length_exceeded", "maxpredictedtokensreached", "contextlengthreached"}
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
_FAILED = {"error", "abort", "aborted", "cancelled", "insufficient_system_resource", "engine_error", "timeout"}


def _choice(choice: dict[str, Any], n_tokens: int | None) -> Choice:
    # Some servers tell none of what came to its end.
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
    elif reason in _NONE:
        declined = f"ended with '{told}'"
    elif reason not in _STOP | _LENGTH:
        _unknown(told)
    return Choice(content, reasoning, "length" if reason in _LENGTH else "stop", n_tokens, declined)


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
    log.warning("an answer ended with '%s', which is not known: it counts as complete", reason)
