"""Reference log-probabilities: once for each trace, shared by every arm, selection, seed and beta of a policy."""

import logging
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import add_fused_lm_head

from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.generate.chat import tokenised
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import References, Traces

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
    add_fused_lm_head(model)  # as in training: the logits of a batch may not fit in memory
    frame = read_table(traces, Traces)
    sequences = tokenised(tokenizer, frame["prompt"].to_list(), frame["text"].to_list(), chat)
    longest = max(max_lengths)
    order = sorted(range(len(sequences)), key=lambda row: -min(len(sequences[row][0]), longest))
    logps = {length: [0.0] * len(sequences) for length in max_lengths}
    started = time.monotonic()
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        batch = tokenizer.pad({"input_ids": [sequences[row][0][:longest] for row in rows]}, return_tensors="pt").to(device)
        positions = torch.arange(batch["input_ids"].shape[1], device=device)
        begins = torch.tensor([sequences[row][1] for row in rows], device=device)[:, None]
        completion = (positions >= begins) & batch["attention_mask"].bool()
        labels = batch["input_ids"].masked_fill(~completion, -100)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            token_logps = model(**batch, labels=labels, fused_lm_head=True).log_probs  # of positions 1, 2, ...
        for length in max_lengths:
            for row, logp in zip(rows, token_logps[:, : length - 1].sum(1).tolist(), strict=True):
                logps[length][row] = logp
        done = begin + len(rows)
        left = (time.monotonic() - started) / done * (len(order) - done)
        log.info("reference of %d of %d traces, about %.0f s left", done, len(order), left)
    starts = [start for _, start in sequences]
    tokens = [len(ids) - start for ids, start in sequences]
    columns = {"trace_id": frame["trace_id"], "n_prompt_tokens": starts, "n_tokens": tokens}
    parts = [pl.DataFrame({**columns, "max_length": [length] * len(frame), "logp": logps[length]}) for length in max_lengths]
    write_table(pl.concat(parts).select(list(References.to_schema().columns)), References, output)
