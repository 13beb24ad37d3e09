"""Checkpoints in transformers' format, loaded whole or refused with a message: no weight is made up, no code of theirs is run."""

import re
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from prefdelta.run.errors import PrefdeltaError

NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class CheckpointError(PrefdeltaError):
    """A checkpoint can't be used; the message names its folder, what is wrong, and what to do."""


def load_tokenizer(folder: Path | str | None, *, served: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint in ``folder``, with a chat template and an end token.

    Raises CheckpointError where it can't be loaded or lacks one of the two: a policy that never learns to end, or that
    learns an end which is none to those who generate, would be trained without a word. A server (``served``) has them from
    elsewhere, too.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # of damaged files, the tokenizers library raises bare ones
        raise _unusable("tokenizer", folder, error, "tokenizer.json, tokenizer_config.json") from None
    if served:
        return tokenizer
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"the tokenizer of {folder} has no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json), "
            "so it does not say how a conversation is put to the model. Take the instruction-tuned checkpoint, or name as `repo` "
            "a local copy that has one"
        )
    # A token that the vocabulary lacks is added to the tokenizer, and has no weights in the model.
    if tokenizer.eos_token is None or tokenizer.eos_token_id >= load_config(folder).get_text_config().vocab_size:
        state = f"says that it is {tokenizer.eos_token!r}, which the model does not have" if tokenizer.eos_token else "has none"
        raise CheckpointError(
            f"the tokenizer of {folder} must have an `eos_token` and {state}: nothing would end a completion. Name as `repo` a "
            "local copy whose tokenizer_config.json has as `eos_token` the token at which generation stops "
            "(generation_config.json and the chat template tell which it is)"
        )
    return tokenizer


def load_model(folder: Path | str | None, dtype: Any) -> Any:
    """The causal language model of the checkpoint in ``folder``, with weights of ``dtype`` ("auto": its own).

    Raises CheckpointError where it can't be loaded, where a weight is missing (transformers would draw it at random), left over
    by a layer that the configuration does not have, or not finite.
    """
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _unusable("model", folder, error, "config.json, *.safetensors") from None
    known = {_shape(name) for name in model.state_dict()}
    layers = {name for name in told["unexpected_keys"] if re.search(r"\d", name) and _shape(name) in known}
    for state, names in (("lack", told["missing_keys"]), ("have, beyond config.json,", layers)):
        if names:
            raise CheckpointError(
                f"the weights of {folder} {state} {len(names)} tensors of {type(model).__name__}, such as {min(names)}: they do "
                "not fit its config.json. Fetch or make the checkpoint again"
            )
    if name := not_finite(dict(model.named_parameters())):
        raise CheckpointError(
            f"the weight {name} of {folder} is not finite in {model.dtype}: what the model writes means nothing. Fetch or make "
            "the checkpoint again; where only float16 is too narrow for it, give it another `dtype`"
        )
    return model


def load_config(folder: Path | str | None) -> Any:
    """The configuration of the checkpoint in ``folder``. Raises CheckpointError."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise _unusable("configuration", folder, error, "config.json") from None


def not_finite(weights: dict[str, torch.Tensor]) -> str | None:
    """The name of a weight that holds an infinity or NaN, if any does. Shards of a tensor count as the whole."""

    def finite(*tensors: torch.Tensor) -> bool:
        largest: Any = get_total_norm(tensors, norm_type=torch.inf)
        largest = largest.full_tensor() if isinstance(largest, DTensor) else largest
        return bool(torch.isfinite(largest))

    # Quantised weights are no numbers yet, and those that DeepSpeed shards are empty.
    held = {name: weight.detach() for name, weight in weights.items() if weight.dtype in NUMBERS and weight.numel()}
    if not held or finite(*held.values()):
        return None
    return next(name for name, weight in held.items() if not finite(weight))


def _shape(name: str) -> str:
    """The name of a weight without the numbers of layers."""
    return re.sub(r"\d+", "#", name)


def _unusable(what: str, folder: Path | str | None, error: Exception, files: str) -> CheckpointError:
    reason, do = " ".join(str(error).split())[:400], "if they are damaged or missing, fetch or make the checkpoint again"
    if "trust_remote_code" in str(error):
        do = "this checkpoint comes with code of its own, which is never run: take one that transformers knows by itself"
    return CheckpointError(
        f"the {what} of {folder} can't be loaded ({type(error).__name__}: {reason}). Look at its {files}: {do}"
    )
