"""Generation with transformers: batched by length, with a key-value cache, deterministic for a seed."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prefdelta.chat import decode, encode
from prefdelta.generate import Completion, Request, Sampling

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
        # Else its other values (a repetition penalty, say) would hold wherever the request is silent.
        self.model.generation_config = GenerationConfig()
        self.settings = settings
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token

    def sample(self, prompts: list[str], sampling: Sampling) -> list[list[Completion]]:
        """The completions of each of ``prompts`` (user messages), in the given order."""
        encoded = encode(self.tokenizer, prompts, self.settings)
        drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        config = GenerationConfig(
            do_sample=sampling.temperature > 0,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=sorted(self.ends),
            **(drawn if sampling.temperature > 0 else {}),
        )
        # Neighbours in a batch have equal lengths, so little is padded; the longest come first, so a batch that does not
        # fit in memory fails at once.
        order = sorted((-len(ids), index) for index, ids in enumerate(encoded) for _ in range(sampling.samples))
        results: list[list[Completion]] = [[] for _ in prompts]
        batch_size = self.settings["batch_size"]
        started = time.monotonic()
        for begin in range(0, len(order), batch_size):
            batch = [index for _, index in order[begin : begin + batch_size]]
            for index, made in zip(batch, self._batch([encoded[i] for i in batch], config), strict=True):
                results[index].append(made)
            done = min(begin + batch_size, len(order))
            left = (time.monotonic() - started) / done * (len(order) - done)
            log.info("sampled %d of %d completions, about %.0f s left", done, len(order), left)
        return results

    def _batch(self, encoded: list[list[int]], config: GenerationConfig) -> Iterator[Completion]:
        batch = self.tokenizer.pad({"input_ids": encoded}, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=config
            )
        for tokens in output[:, batch["input_ids"].shape[1] :].tolist():
            end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
            kept = tokens if end is None else tokens[: end + 1]
            yield decode(self.tokenizer, kept, "length" if end is None else "stop", self.settings)
