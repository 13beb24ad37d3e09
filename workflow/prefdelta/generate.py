"""Sampling from a checkpoint with transformers: batched by length, with a key-value cache, deterministic for a seed."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completion:
    """One sampled text. ``n_tokens`` counts the end token; ``finish_reason`` is 'stop' or, at the token limit, 'length'."""

    text: str
    n_tokens: int
    finish_reason: str


class Sampler:
    """A checkpoint that is loaded once for any number of calls."""

    def __init__(self, checkpoint: Path | str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto").to(self.device).eval()

    def sample(
        self, prompts: list[str], *, n: int, temperature: float, max_new_tokens: int, batch_size: int, seed: int
    ) -> list[list[Completion]]:
        """``n`` completions for each of ``prompts`` (user messages), in the given order. Temperature 0 is greedy."""
        rendered = [
            self.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
            for prompt in prompts
        ]
        encoded = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        config = GenerationConfig(
            do_sample=temperature > 0,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}),
        )
        torch.manual_seed(seed)
        # Neighbours in a batch have equal lengths, so little is padded; the longest come first, so a batch that does not
        # fit in memory fails at once.
        order = sorted((-len(ids), index) for index, ids in enumerate(encoded) for _ in range(n))
        results: list[list[Completion]] = [[] for _ in prompts]
        started = time.monotonic()
        for begin in range(0, len(order), batch_size):
            batch = [index for _, index in order[begin : begin + batch_size]]
            for index, completion in zip(batch, self._batch([encoded[i] for i in batch], config), strict=True):
                results[index].append(completion)
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
            stopped = self.tokenizer.eos_token_id in tokens
            kept = tokens[: tokens.index(self.tokenizer.eos_token_id)] if stopped else tokens
            text = self.tokenizer.decode(kept, skip_special_tokens=True)
            yield Completion(text, len(kept) + stopped, "stop" if stopped else "length")
