"""Reference log-probabilities: once for each trace, shared by every arm, selection, seed and beta of a policy."""

import logging
from pathlib import Path

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdelta.manifest import read_manifest
from prefdelta.tables import References, Traces, read_table, write_table

log = logging.getLogger(__name__)


def compute_reference(traces: Path | str, manifest: Path | str, output: Path | str, *, batch_size: int, threads: int) -> None:
    """Writes the `References` table: the summed log-probability of each trace's completion (end token included).

    This is the reference term of DPO (arXiv 2305.18290, equation 7), tokenised as TRL does it, without truncation. Batches hold
    traces of similar length.
    """
    torch.set_num_threads(threads)
    read_manifest(manifest)
    checkpoint = Path(manifest).parent
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto").to(device).eval()
    frame = read_table(traces, Traces)
    sequences, starts = [], []
    for prompt, text in frame.select("prompt", "text").iter_rows():
        turn = [{"role": "user", "content": prompt}]
        start = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        sequences.append(tokenizer.apply_chat_template([*turn, {"role": "assistant", "content": text}], return_dict=False))
        starts.append(len(start))
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    logps = [0.0] * len(sequences)
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        batch = tokenizer.pad({"input_ids": [sequences[row] for row in rows]}, return_tensors="pt").to(device)
        ids = batch["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[:, :-1].float()
        token_logps = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
        positions = torch.arange(1, ids.shape[1], device=device)
        begins = torch.tensor([starts[row] for row in rows], device=device)[:, None]
        completion = (positions >= begins) & batch["attention_mask"][:, 1:].bool()
        for row, logp in zip(rows, (token_logps * completion).sum(1).tolist(), strict=True):
            logps[row] = logp
        log.info("reference of %d of %d traces", begin + len(rows), len(order))
    lengths = [len(ids) for ids in sequences]
    columns = {"trace_id": frame["trace_id"], "logp": logps, "n_prompt_tokens": starts}
    tokens = [length - start for length, start in zip(lengths, starts, strict=True)]
    write_table(pl.DataFrame({**columns, "n_tokens": tokens}), References, output)
