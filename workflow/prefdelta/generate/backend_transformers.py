"""Generation with transformers: batched by length, without work for what has ended, deterministic for a seed."""

import logging
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prefdelta.generate.chat import decode, encode
from prefdelta.generate.completions import Completion, Request
from prefdelta.study.sampling import Sampling

log = logging.getLogger(__name__)


def complete(
    requests: list[Request],
    *,
    settings: dict[str, Any],
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: str,
) -> list[list[Completion]]:
    """`generate.complete` with transformers.

    Settings: ``batch_size``, ``dtype``, ``system``, ``chat_template_kwargs``, ``think``.
    """
    torch.set_num_threads(threads)
    sampler = _Sampler(checkpoint, settings)
    results: list[list[Completion]] = [[] for _ in requests]
    by_sampling: dict[Sampling, list[int]] = {}
    for index, request in enumerate(requests):
        by_sampling.setdefault(request.sampling, []).append(index)
    for sampling, indices in by_sampling.items():
        torch.manual_seed(seed)
        for index, several in zip(indices, sampler.sample([requests[i].prompt for i in indices], sampling), strict=True):
            results[index] = several
    return results


class _Sampler:
    """A checkpoint that is loaded once for any number of calls."""

    def __init__(self, checkpoint: Path | None, settings: dict[str, Any]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=settings["dtype"]).to(self.device).eval()
        ends = self.model.generation_config.eos_token_id  # more than one where turns and texts end differently (Llama 3)
        self.ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self.settings = settings
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token

    def sample(self, prompts: list[str], sampling: Sampling) -> list[list[Completion]]:
        """The completions of each of ``prompts`` (user messages), in the given order."""
        encoded = encode(self.tokenizer, prompts, self.settings)
        # Neighbours in a batch have equal lengths, so little is padded; the longest come first, so a batch that does not
        # fit in memory fails at once.
        order = sorted((-len(ids), index) for index, ids in enumerate(encoded) for _ in range(sampling.samples))
        results: list[list[Completion]] = [[] for _ in prompts]
        batch_size = self.settings["batch_size"]
        started = time.monotonic()
        for begin in range(0, len(order), batch_size):
            batch = [index for _, index in order[begin : begin + batch_size]]
            with torch.inference_mode():
                made = self._batch([encoded[i] for i in batch], sampling)
            for index, tokens in zip(batch, made, strict=True):
                ended = tokens[-1] in self.ends
                results[index].append(decode(self.tokenizer, tokens, "stop" if ended else "length", self.settings))
            done = min(begin + batch_size, len(order))
            left = (time.monotonic() - started) / done * (len(order) - done)
            log.info("sampled %d of %d completions, about %.0f s left", done, len(order), left)
        return results

    def _batch(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        """The tokens that follow each of ``prompts``, up to an end token, which is kept.

        As `generate` of transformers, but the samples of a prompt, which are neighbours, share its forward, and rows that have
        ended leave the batch: whenever they are a quarter of it, since the cache of the others is copied each time.
        """
        batch = self.tokenizer.pad({"input_ids": [ids for ids, _ in groupby(prompts)]}, return_tensors="pt").to(self.device)
        places = [place for place, (_, same) in enumerate(groupby(prompts)) for _ in same]
        cache, mask = DynamicCache(config=self.model.config), batch["attention_mask"]
        logits = self._forward(batch["input_ids"], mask, cache)
        kept = torch.tensor(places, device=self.device)
        logits, mask = logits[kept], mask[kept]
        cache.reorder_cache(kept)
        warpers = _warpers(sampling)
        made: list[list[int]] = [[] for _ in prompts]
        rows, ended = list(range(len(prompts))), set()
        while True:
            if sampling.temperature > 0:
                tokens = torch.multinomial(warpers(None, logits).softmax(-1), 1)
            else:
                tokens = logits.argmax(-1, keepdim=True)
            for row, token in zip(rows, tokens[:, 0].tolist(), strict=True):
                if row not in ended:
                    made[row].append(token)
                    if token in self.ends or len(made[row]) == sampling.max_new_tokens:
                        ended.add(row)
            going = [place for place, row in enumerate(rows) if row not in ended]
            if not going:
                return made
            if len(going) <= 0.75 * len(rows):
                kept = torch.tensor(going, device=self.device)
                rows, tokens, mask = [rows[place] for place in going], tokens[kept], mask[kept]
                cache.reorder_cache(kept)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._forward(tokens, mask, cache)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits (float32) of what follows ``ids``, which end where ``mask`` (of all that is in ``cache`` and of them) ends."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = found.logits[:, -1].float()
        return logits


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    """What `generate` of transformers makes of logits, in its order."""
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers
