"""What servers say: the choices of a chat completion, why a request was refused, and how to ask those that lack something."""

import email.utils
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

Body = dict[str, Any]  # of a request


@dataclass(frozen=True)
class Choice:
    """One choice of an answer. ``n_tokens``: as the server counts, if it does. ``declined``: why there is no answer."""

    content: str | None = None
    reasoning: str = ""
    finish_reason: str = "stop"
    n_tokens: int | None = None
    declined: str | None = None


def choices(response: Any) -> list[Choice]:
    """The choices of a chat completion. Raises ValueError where ``response`` is none."""
    try:
        usage = response.get("usage") or {}
        n_tokens = usage.get("completion_tokens") if len(response["choices"]) == 1 else None  # it is the sum over all choices
        made = [_choice(choice["message"], choice.get("finish_reason") or "stop", n_tokens) for choice in response["choices"]]
    except (AttributeError, KeyError, TypeError):
        made = []
    if not made:
        raise ValueError(f"not a chat completion: {str(response)[:300]}")
    return made


def _choice(message: dict[str, Any], finish_reason: str, n_tokens: int | None) -> Choice:
    content = message.get("content")
    # vLLM and OpenRouter say `reasoning`, DeepSeek and SGLang `reasoning_content`.
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
    declined = "refused by the model" if message.get("refusal") else None
    if finish_reason == "content_filter":
        declined = "stopped by a content filter"
    return Choice(content if isinstance(content, str) else None, reasoning, finish_reason, n_tokens, declined)


# What servers say, in the text of a 400 or 422, of keys that they do not know ...
_LACKS = {
    "response_format": re.compile(r"response_format|json_schema|structured.output|guided", re.I),
    "max_tokens": re.compile(r"max_completion_tokens"),
    "n": re.compile(r"""['"`]n['"`]|\bn\s*(>|<|=|!=|must|should|is not|has to)|(multiple|several) (choices|completions)""", re.I),
}
# ... and of a request whose content they decline.
TOO_LONG = "longer than the model's context"
_DECLINED = {
    TOO_LONG: re.compile(r"context.length|context.window|too long|too many tokens", re.I),
    "refused by a content filter": re.compile(r"content.filter|content.management.policy|moderation", re.I),
}


def declined(status: int, text: str) -> str | None:
    """Why a server that refused a request declines its content; None where it refused for another reason."""
    found = [reason for reason, pattern in _DECLINED.items() if pattern.search(text)]
    return found[0] if status in (400, 413, 422) and found else None


def lacking(status: int, text: str, body: Body) -> str | None:
    """The key of ``body`` that a server which refused it does not know, if that is the reason and it can be done without."""
    found = [key for key, pattern in _LACKS.items() if pattern.search(text) and adapted(body, {key}) != [body]]
    return found[0] if status in (400, 404, 422, 501) and found else None


def learn(lacks: set[str], key: str, base_url: str) -> None:
    """Adds to ``lacks`` what the server does not know, and says so the first time."""
    if key not in lacks:
        log.warning("%s does not know `%s`: going on without it", base_url, key)
    lacks.add(key)


def adapted(body: Body, lacks: set[str]) -> list[Body]:
    """``body`` for a server without the keys ``lacks``: without a schema, or as single requests with successive seeds."""
    single = {key: value for key, value in body.items() if key not in lacks}
    if "max_tokens" in lacks and "max_tokens" in body:
        single["max_completion_tokens"] = body["max_tokens"]
    if "n" not in lacks or body.get("n", 1) == 1:
        return [{**single, "n": body["n"]} if "n" in body else single]
    return [{**single, "seed": body["seed"] + number} for number in range(body["n"])]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds for which a server asks to be left alone, by its header Retry-After (seconds or a date) or retry-after-ms."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
