"""Reference log-probabilities: once for each trace, shared by every arm, selection, seed and beta of a policy."""

import logging
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdelta.chat import render, target
from prefdelta.manifest import checked_folder
from prefdelta.tables import References, Traces, read_table, write_table

log = logging.getLogger(__name__)


def compute_reference(
    traces: Path | str,
    manifest: Path | str,
    output: Path | str,
    *,
    batch_size: int,
    dtype: str,
    max_lengths: list[int],
    chat: dict[str, Any],
    threads: int,
    bf16: bool = False,
) -> None:
    """Writes the `References` table: the summed log-probability of each trace's completion (end token included).

    This is the reference term of DPO (arXiv 2305.18290, equation 7), tokenised as in training. There is a row for each of
    ``max_lengths`` (tokens of prompt and completion together): what is cut off is a suffix, so all come from the same pass.
    Batches hold traces of similar length. ``bf16`` is mixed precision, as in training: else rounding alone would part policy and
    reference.
    """
    torch.set_num_threads(threads)
    checkpoint = checked_folder(manifest)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).to(device).eval()
    frame = read_table(traces, Traces)
    sequences, starts = [], []
    for prompt, text in frame.select("prompt", "text").iter_rows():
        rendered = render(tokenizer, prompt, chat)
        whole = rendered + target(tokenizer, rendered, text)
        ids, whole_ids = tokenizer([rendered, whole], add_special_tokens=False)["input_ids"]
        starts.append(next((n for n, (a, b) in enumerate(zip(ids, whole_ids, strict=False)) if a != b), len(ids)))
        sequences.append(whole_ids)
    longest = max(max_lengths)
    order = sorted(range(len(sequences)), key=lambda index: -min(len(sequences[index]), longest))
    logps = {length: [0.0] * len(sequences) for length in max_lengths}
    started = time.monotonic()
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        batch = tokenizer.pad({"input_ids": [sequences[row][:longest] for row in rows]}, return_tensors="pt").to(device)
        ids = batch["input_ids"]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            hidden = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[:, :-1]
        token_logps = torch.stack([_picked(logits, targets) for logits, targets in zip(hidden, ids[:, 1:], strict=True)])
        positions = torch.arange(1, ids.shape[1], device=device)
        begins = torch.tensor([starts[row] for row in rows], device=device)[:, None]
        completion = (positions >= begins) & batch["attention_mask"][:, 1:].bool()
        for length in max_lengths:
            summed = (token_logps * (completion & (positions < length))).sum(1).tolist()
            for row, logp in zip(rows, summed, strict=True):
                logps[length][row] = logp
        done = begin + len(rows)
        left = (time.monotonic() - started) / done * (len(order) - done)
        log.info("reference of %d of %d traces, about %.0f s left", done, len(order), left)
    tokens = [len(ids) - start for ids, start in zip(sequences, starts, strict=True)]
    columns = {"trace_id": frame["trace_id"], "n_prompt_tokens": starts, "n_tokens": tokens}
    parts = [pl.DataFrame({**columns, "max_length": [length] * len(frame), "logp": logps[length]}) for length in max_lengths]
    write_table(pl.concat(parts).select(list(References.to_schema().columns)), References, output)


def _picked(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, one sequence at a time: the float32 copy of a whole batch may not fit."""
    return torch.log_softmax(logits.float(), -1).gather(-1, targets[:, None])[:, 0]
