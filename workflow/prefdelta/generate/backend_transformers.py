"""Generation with transformers: batched by length, without work for what has ended.

Each completion has random numbers of its own, from the seed, its prompt's id and its number: what is beside it in a batch
changes no more than rounding. So how many are in a batch is how a machine makes them, not what they are.
"""

import logging
import time
from hashlib import blake2b
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prefdelta.checkpoints.load import CheckpointError, load_model, load_tokenizer
from prefdelta.checkpoints.memory import fitting
from prefdelta.generate.chat import decode, encode
from prefdelta.generate.completions import Completion, Request
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.study.sampling import Sampling

log = logging.getLogger(__name__)


@fitting("lower run.batch_size")
def complete(
    requests: list[Request],
    *,
    settings: CheckpointSettings,
    run: GenerationRun,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: Path,
) -> list[list[Completion]]:
    """`generate.complete` with transformers, ``run.batch_size`` completions at a time.

    Raises CheckpointError and OutOfMemoryError.
    """
    torch.set_num_threads(threads)
    sampler = _Sampler(checkpoint, settings, run.batch_size)
    results: list[list[Completion]] = [[] for _ in requests]
    by_sampling: dict[Sampling, list[int]] = {}
    for index, request in enumerate(requests):
        by_sampling.setdefault(request.sampling, []).append(index)
    for sampling, indices in by_sampling.items():
        for index, several in zip(indices, sampler.sample([requests[i] for i in indices], sampling, seed), strict=True):
            results[index] = several
    return results


class _Sampler:
    """A checkpoint that is loaded once for any number of calls."""

    def __init__(self, checkpoint: Path | None, settings: CheckpointSettings, batch_size: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(checkpoint, padding_side="left")
        self.model = load_model(checkpoint, settings.dtype).to(self.device).eval()
        ends = self.model.generation_config.eos_token_id  # more than one where turns and texts end differently (Llama 3)
        self.ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self.settings, self.batch_size = settings, batch_size
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token

    def sample(self, requests: list[Request], sampling: Sampling, seed: int) -> list[list[Completion]]:
        """The completions of each of ``requests``, in the given order."""
        encoded = encode(self.tokenizer, [request.prompt for request in requests], self.settings)
        # Neighbours in a batch have equal lengths, so little is padded; the longest come first, so a batch that does not
        # fit in memory fails at once.
        order = sorted((-len(ids), index, number) for index, ids in enumerate(encoded) for number in range(sampling.samples))
        results: list[list[Completion]] = [[] for _ in requests]
        started = time.monotonic()
        for begin in range(0, len(order), self.batch_size):
            batch = [(index, number) for _, index, number in order[begin : begin + self.batch_size]]
            luck = [_luck(seed, requests[index].prompt_id, number, sampling.max_new_tokens) for index, number in batch]
            with torch.inference_mode():
                made = self._batch([encoded[index] for index, _ in batch], np.stack(luck), sampling)
            for (index, _), tokens in zip(batch, made, strict=True):
                ended = tokens[-1] in self.ends
                results[index].append(decode(self.tokenizer, tokens, "stop" if ended else "length", self.settings.think))
            done = min(begin + self.batch_size, len(order))
            left = (time.monotonic() - started) / done * (len(order) - done)
            log.info("sampled %d of %d completions, about %.0f s left", done, len(order), left)
        return results

    def _batch(self, prompts: list[list[int]], luck: NDArray[np.float64], sampling: Sampling) -> list[list[int]]:
        """The tokens that follow each of ``prompts``, up to an end token, which is kept. ``luck``: [prompts, new tokens].

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
        for step in range(sampling.max_new_tokens):
            if sampling.temperature > 0:
                reached = warpers(None, logits).double().softmax(-1).cumsum(-1)
                share = torch.from_numpy(luck[rows, step, None]).to(self.device) * reached[:, -1:]
                tokens = (reached <= share).sum(-1, keepdim=True).clamp(max=reached.shape[-1] - 1)
            else:
                tokens = logits.argmax(-1, keepdim=True)
            for row, token in zip(rows, tokens[:, 0].tolist(), strict=True):
                if row not in ended:
                    made[row].append(token)
                    if token in self.ends or len(made[row]) == sampling.max_new_tokens:
                        ended.add(row)
            going = [place for place, row in enumerate(rows) if row not in ended]
            if not going:
                break
            if len(going) <= 0.75 * len(rows):
                kept = torch.tensor(going, device=self.device)
                rows, tokens, mask = [rows[place] for place in going], tokens[kept], mask[kept]
                cache.reorder_cache(kept)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._forward(tokens, mask, cache)
        return made

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
        if not logits.amax(-1).isfinite().all():
            raise CheckpointError(
                f"the model of {self.tokenizer.name_or_path} gives logits that are not finite in {self.model.dtype}: nothing can "
                "be drawn from them. Give it another `dtype` (section `models`), or another checkpoint"
            )
        return logits


def _luck(seed: int, prompt_id: str, number: int, n: int) -> NDArray[np.float64]:
    """Uniform random numbers, one for each of ``n`` tokens of a completion."""
    digest = blake2b(f"{seed}/{prompt_id}/{number}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest)).random(n)


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
