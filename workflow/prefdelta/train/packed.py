"""A training forward without padding: the real tokens of a batch in one row, a prompt once for all of its completions.

It stands in for the padded forward with the fused head of TRL, behind the same call: all but attention sees each token once,
attention sees rows of like lengths together, and only states that predict a completion token reach the vocabulary projection,
which TRL's kernel does in chunks.
"""

import functools
import math
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl.trainer.utils import FusedCausalLMOutput

NAME = "prefdelta_packed"
_LIKE = 0.8  # rows at least this long, relative to the longest of a group, share its padding


class UnpackableError(Exception):
    """A layer of the model does not attend to all tokens before."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch [rows, length] lie in one row of T tokens.

    ``tokens`` [T]: their ids. ``positions`` [T]: their places in their rows. ``groups``: for rows of like lengths, the token at
    each place [rows of the group, longest of the group] (any past a row's end, since none looks ahead). ``origin`` [T]: where a
    token's output lies among those of all groups. ``predictors``: the token before each token that has a label. ``labels``: those
    labels.
    """

    tokens: Tensor
    positions: Tensor
    groups: list[Tensor]
    origin: Tensor
    predictors: Tensor
    labels: Tensor


def pack(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Packing:
    """Packs a batch that is padded on the right. Tokens before the first label are a row's prompt, which rows may share."""
    device = input_ids.device
    ids, lengths = input_ids.cpu(), attention_mask.sum(1).tolist()
    labelled = labels.cpu() != -100
    starts = torch.where(labelled.any(1), labelled.int().argmax(1), torch.tensor(lengths)).tolist()
    tokens, positions, places = [], [], []  # places: for each row, the packed token at each of its places
    total = 0
    prompts: dict[tuple[int, ...], Tensor] = {}
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        shared = prompts.get(prompt := tuple(ids[row, :start].tolist()))
        begin = 0 if shared is None else start
        own = torch.arange(total, total + length - begin)
        total += length - begin
        tokens.append(ids[row, begin:length])
        positions.append(torch.arange(begin, length))
        places.append(own if shared is None else torch.cat([shared, own]))
        prompts.setdefault(prompt, places[row][:start])
    groups, origin, offset = [], torch.empty(total, dtype=torch.long), 0
    pending = sorted(range(len(places)), key=lambda row: -lengths[row])
    while pending:
        longest = lengths[pending[0]]
        rows = [row for row in pending if lengths[row] >= _LIKE * longest]
        pending = pending[len(rows) :]
        index = pad_sequence([places[row] for row in rows], batch_first=True)
        for number, row in enumerate(rows):
            begin = offset + number * longest
            origin[places[row]] = torch.arange(begin, begin + lengths[row])
        offset += index.numel()
        groups.append(index.to(device))
    predictors = [
        place[: length - 1][labelled[row, 1:length]] for row, (place, length) in enumerate(zip(places, lengths, strict=True))
    ]
    return Packing(
        torch.cat(tokens).to(device),
        torch.cat(positions).to(device),
        groups,
        origin.to(device),
        torch.cat(predictors).to(device),
        labels[:, 1:][labels[:, 1:] != -100],
    )


def _attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _: Any, packing: Packing, **options: Any) -> Any:
    """Causal attention within each row. Query, key, value: [1, heads, T, size of a head]."""
    if options.get("sliding_window") is not None:
        raise UnpackableError
    flat = [states[0].transpose(0, 1) for states in (query, key, value)]
    outputs = []
    for index in packing.groups:
        padded = [states.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2) for states in flat]
        outputs.append(sdpa_attention_forward(module, *padded, attention_mask=None, is_causal=True, **options)[0].flatten(0, 1))
    return torch.cat(outputs).index_select(0, packing.origin)[None], None


AttentionInterface.register(NAME, _attend)


def use_packed_forward(model: PreTrainedModel) -> bool:
    """Replaces the fused forward that TRL has given ``model`` (`trl.trainer.utils.add_fused_lm_head`) by one that packs.

    The model is then good for nothing else. Returns False, with the model as it was, where the two differ on a small batch, as
    they do for models whose layers look at the row other than through plain attention (windows, sinks, recurrence).
    """
    fused, attention = model.forward, model.config._attn_implementation
    batch = _sample(model)
    with torch.no_grad():
        expected = fused(**batch, use_cache=False).log_probs
        model.set_attn_implementation(NAME)
        model.forward = types.MethodType(functools.partial(_packed, fused), model)
        try:
            difference = (model(**batch, use_cache=False).log_probs - expected).abs().mean().item()
        except UnpackableError:
            difference = math.inf
    if difference < (1e-4 if model.dtype == torch.float32 else 0.05):
        return True
    model.set_attn_implementation(attention)
    model.forward = fused
    return False


def _sample(model: PreTrainedModel) -> dict[str, Any]:
    """Two rows of random tokens, of different lengths and with a common prompt."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (2, 48), generator=random)
    ids[1, :16] = ids[0, :16]
    mask = torch.ones_like(ids)
    mask[1, 32:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :16] = -100
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": mask.to(model.device),
        "labels": labels.to(model.device),
        "fused_lm_head": True,
    }


def _packed(
    fused: Any, model: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **kwargs: Any
) -> FusedCausalLMOutput:
    packing = pack(input_ids, attention_mask, labels)

    def keep(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, packing.predictors]
        return output

    # Within the model's own forward, so that whatever wraps the model (DDP, FSDP) sees all of its weights used.
    hook = model.base_model.register_forward_hook(keep)
    try:
        tokens, positions, targets = packing.tokens[None], packing.positions[None], packing.labels[None]
        output = fused(input_ids=tokens, position_ids=positions, shift_labels=targets, packing=packing, **kwargs)
    finally:
        hook.remove()
    mask = labels[:, 1:] != -100
    for name in set(output) & {"log_probs", "entropy", "mean_logits", "is_top1"}:
        output[name] = output[name].new_zeros(mask.shape).masked_scatter(mask, output[name])
    output["label_mask"] = mask
    return output
