"""How a conversation becomes tokens and back, the same way in every backend, in the reference and in training.

Prompts and traces are text: the letters of a control token in one of them are no such token.
"""

from typing import Literal

from transformers import PreTrainedTokenizerBase

from prefdelta.checkpoints import control
from prefdelta.generate.completions import Completion, completion
from prefdelta.study.models import Chat

THOUGHT, THOUGHT_END = "<think>", "</think>"


def render(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: Chat) -> str:
    """The prompt as the model reads it, up to where its answer begins. Raises CheckpointError where its template refuses it."""
    return control.render(tokenizer, _messages(prompt, chat), **chat.chat_template_kwargs)


def _messages(prompt: str, chat: Chat) -> list[dict[str, str]]:
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    return [*system, {"role": "user", "content": prompt}]


def target(tokenizer: PreTrainedTokenizerBase, rendered: str, text: str) -> str:
    """A trace as the continuation of a `render`ed prompt, end token included.

    The chat template is not asked: templates of reasoning models (DeepSeek-R1, Nemotron, Qwen3) drop the reasoning of assistant
    turns, and training would never see it. White space in front is left out, so that no token spans prompt and trace, and so is
    an opening mark that the prompt ends with already.
    """
    if rendered.rstrip().endswith(THOUGHT):
        text = text.removeprefix(THOUGHT)
    return text.lstrip() + str(tokenizer.eos_token)


def encode(tokenizer: PreTrainedTokenizerBase, prompts: list[str], chat: Chat) -> list[list[int]]:
    """Token ids of each `render`ed prompt. Control tokens in the prompt, and in the system prompt, are text."""
    return _encoded(tokenizer, {prompt: render(tokenizer, prompt, chat) for prompt in prompts}, prompts, chat)


def _encoded(tokenizer: PreTrainedTokenizerBase, rendered: dict[str, str], prompts: list[str], chat: Chat) -> list[list[int]]:
    # The template wrote the special tokens already.
    ids: list[list[int]] = tokenizer([rendered[prompt] for prompt in prompts], add_special_tokens=False)["input_ids"]
    tokens = control.control(tokenizer)
    for place, prompt in enumerate(prompts):
        if tokens.search(prompt) or tokens.search(chat.system or ""):
            ids[place] = control.encode(tokenizer, _messages(prompt, chat), **chat.chat_template_kwargs)
    return ids


def tokenised(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], texts: list[str], chat: Chat
) -> list[tuple[list[int], int]]:
    """Token ids of each prompt and its trace together, as they are trained on, and where the trace begins.

    It begins where generation begins: after all tokens of the prompt alone. Where a token would span both, and where a special
    token in the trace is text, the trace is tokenised apart.
    """
    once = list(dict.fromkeys(prompts))
    rendered = {prompt: render(tokenizer, prompt, chat) for prompt in once}
    alone = dict(zip(once, _encoded(tokenizer, rendered, once, chat), strict=True))
    targets = [target(tokenizer, rendered[prompt], text) for prompt, text in zip(prompts, texts, strict=True)]
    wholes = [rendered[prompt] + text for prompt, text in zip(prompts, targets, strict=True)]
    found = []
    for prompt, text, ids in zip(prompts, targets, tokenizer(wholes, add_special_tokens=False)["input_ids"], strict=True):
        begin, marked = alone[prompt], _marked(tokenizer, rendered[prompt], text)
        kept = marked == text and ids[: len(begin)] == begin
        found.append((ids if kept else begin + control.continued(tokenizer, marked), len(begin)))
    return found


def _marked(tokenizer: PreTrainedTokenizerBase, rendered: str, text: str) -> str:
    """A `target` in which special tokens are marked as text.

    All but its end, and the marks around its reasoning: a policy that has ``<think>`` and ``</think>`` as special tokens writes
    those tokens itself. Inside the reasoning and the response they are text.
    """
    body, end = text.removesuffix(str(tokenizer.eos_token)), str(tokenizer.eos_token)
    opening = THOUGHT if body.startswith(THOUGHT) else ""
    parts = [body.removeprefix(opening)]
    if opening or rendered.rstrip().endswith(THOUGHT):
        parts = parts[0].rsplit(THOUGHT_END, 1)  # the response is what follows the last one, as in `completions`
    return opening + THOUGHT_END.join(control.marked(tokenizer, part) for part in parts) + end


def decode(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], finish_reason: Literal["stop", "length"], think: tuple[str, str]
) -> Completion:
    """The completion of generated ``tokens``, whose last one is the end token where ``finish_reason`` is 'stop'.

    ``think``: the marks around its reasoning.
    """
    kept = tokens[:-1] if finish_reason == "stop" else tokens
    # Marks that are special tokens must survive to be found.
    text = tokenizer.decode(kept, skip_special_tokens=not think[0])
    return completion(text, len(tokens), finish_reason, think)
