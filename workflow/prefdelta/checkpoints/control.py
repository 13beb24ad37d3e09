"""Control tokens, which only chat templates and we ourselves may write: in a text of a model or a data set they are letters."""

import re
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import mark_control_tokens

from prefdelta.checkpoints.load import CheckpointError

BREAK = "\u200b"  # has no width, and is part of no control token


@lru_cache
def _any_of(names: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")


@lru_cache(maxsize=4)  # asked for each trace
def special(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches special tokens."""
    return _any_of(frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special))


def control(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches special tokens, and further ones that the chat template writes (Qwen3's ``<think>`` and ``<tool_call>``).

    They are those of `apply_chat_template` with ``sanitize_control_tokens``.
    """
    template, added = tokenizer.get_chat_template() if tokenizer.chat_template else "", tokenizer.added_tokens_decoder.values()
    return _any_of(
        frozenset(one.content for one in added if one.special or (one.content in template and not one.content.isspace()))
    )


def broken(text: str, pattern: re.Pattern[str]) -> str:
    """``text`` with a character of no width in each control token that ``pattern`` matches."""
    return pattern.sub(lambda found: found[0][:1] + BREAK + found[0][1:], text)


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], **switches: Any) -> str:
    """A conversation as the model reads it, up to where its answer begins.

    Raises CheckpointError where the template refuses it, as many do a system role.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **switches))
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise CheckpointError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation of {roles} ({type(error).__name__}: {error}). "
            "If it knows no system role, leave out `system` of the model (section `models`), or name as `repo` a local copy "
            "whose template does"
        ) from None


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], **switches: Any) -> list[int]:
    """Token ids of the `render`ed conversation. Control tokens in its messages are text. Raises CheckpointError."""
    render(tokenizer, messages, **switches)  # or that error
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True, **switches
        )
    except ValueError:  # a tokenizer to which the letters of a control token are that token
        pattern = control(tokenizer)
        told = [{key: broken(text, pattern) for key, text in message.items()} for message in messages]
        ids = tokenizer(render(tokenizer, told, **switches), add_special_tokens=False)["input_ids"]
    return ids


def marked(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """``text`` with marks around its special tokens, for `continued`."""
    pattern = special(tokenizer)

    def spelled(found: re.Match[str]) -> str:
        letters = tokenizer(found[0], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return broken(found[0], pattern) if tokenizer.convert_tokens_to_ids(found[0]) in letters else found[0]

    return str(mark_control_tokens(pattern.sub(spelled, text), pattern))


def continued(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a `marked` text that goes on from other tokens. What is marked is text."""
    # After a line's end, so that tokenizers that begin every text with a space do not; as transformers does in the same place.
    line: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    ids: list[int] = tokenizer(f"\n{text}", add_special_tokens=False, sanitize_control_tokens=True)["input_ids"]
    if ids[: len(line)] == line:
        return ids[len(line) :]
    return list(tokenizer(text, add_special_tokens=False, sanitize_control_tokens=True)["input_ids"])
