"""How a conversation becomes tokens and back, the same way in every backend, in the reference and in training."""

from typing import Literal

from transformers import PreTrainedTokenizerBase

from prefdelta.generate.completions import Completion, completion
from prefdelta.study.models import Chat

THOUGHT = "<think>"


def render(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: Chat) -> str:
    """The prompt as the model reads it, up to where its answer begins."""
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    turns = [*system, {"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **chat.chat_template_kwargs))


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
    """Token ids of each `render`ed prompt."""
    rendered = [render(tokenizer, prompt, chat) for prompt in prompts]
    ids: list[list[int]] = tokenizer(rendered, add_special_tokens=False)["input_ids"]  # the template wrote them already
    return ids


def tokenised(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], texts: list[str], chat: Chat
) -> list[tuple[list[int], int]]:
    """Token ids of each prompt and its trace together, as they are trained on, and where the trace begins.

    It begins where these ids part from those of the prompt alone.
    """
    once = dict.fromkeys(prompts)
    rendered = {prompt: render(tokenizer, prompt, chat) for prompt in once}
    alone = dict(zip(once, tokenizer(list(rendered.values()), add_special_tokens=False)["input_ids"], strict=True))
    pairs = list(zip(prompts, texts, strict=True))
    wholes = [rendered[prompt] + target(tokenizer, rendered[prompt], text) for prompt, text in pairs]
    found = []
    for prompt, ids in zip(prompts, tokenizer(wholes, add_special_tokens=False)["input_ids"], strict=True):
        both = enumerate(zip(alone[prompt], ids, strict=False))
        found.append((ids, next((place for place, (one, other) in both if one != other), len(alone[prompt]))))
    return found


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
