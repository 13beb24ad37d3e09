"""Reference log-probabilities: once for each trace, shared by every arm, selection, seed and beta of a policy."""

import logging
import math
import time
from pathlib import Path

import polars as pl
import torch
from trl.trainer.utils import add_fused_lm_head

from prefdelta.checkpoints.load import CheckpointError, load_model, load_tokenizer
from prefdelta.checkpoints.manifest import checked_folder
from prefdelta.checkpoints.memory import fitting
from prefdelta.generate.chat import tokenised
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import References, Traces
from prefdelta.train.settings import ReferenceRun, ReferenceSettings

log = logging.getLogger(__name__)


@fitting("lower run.batch_size, or the methods' max_length")
def compute_reference(
    traces: Path, manifest: Path, references: Path, *, settings: ReferenceSettings, run: ReferenceRun, threads: int
) -> None:
    """Writes the `References` table: the summed log-probability of each trace's completion (end token included).

    This is the reference term of DPO (arXiv 2305.18290, equation 7), tokenised, cut and computed as in training: else rounding
    alone would part policy and reference. Batches hold traces of similar length. ``manifest`` is that of the policy's checkpoint.
    Raises ManifestError, CheckpointError (also where the model gives a trace no finite probability) and OutOfMemoryError.
    """
    torch.set_num_threads(threads)
    checkpoint = checked_folder(manifest)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(checkpoint, padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    dtype = "auto" if settings.arithmetic in ("auto", "auto-bf16") else "float32"
    mixed = settings.arithmetic in ("bf16", "auto-bf16")
    model = load_model(checkpoint, dtype).to(device).eval()
    add_fused_lm_head(model)  # as in training: the logits of a batch may not fit in memory
    frame = read_table(traces, Traces)
    whole = tokenised(tokenizer, frame["prompt"].to_list(), frame["text"].to_list(), settings.chat)
    cut = [ids[: settings.max_length] for ids, _ in whole]
    order = sorted(range(len(cut)), key=lambda row: -len(cut[row]))
    logps = [0.0] * len(cut)
    started = time.monotonic()
    for begin in range(0, len(order), run.batch_size):
        rows = order[begin : begin + run.batch_size]
        batch = tokenizer.pad({"input_ids": [cut[row] for row in rows]}, return_tensors="pt").to(device)
        positions = torch.arange(batch["input_ids"].shape[1], device=device)
        begins = torch.tensor([whole[row][1] for row in rows], device=device)[:, None]
        completion = (positions >= begins) & batch["attention_mask"].bool()
        labels = batch["input_ids"].masked_fill(~completion, -100)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            token_logps = model(**batch, labels=labels, fused_lm_head=True).log_probs
        for row, logp in zip(rows, token_logps.sum(1).tolist(), strict=True):
            logps[row] = logp
        done = begin + len(rows)
        left = (time.monotonic() - started) / done * (len(order) - done)
        log.info("reference of %d of %d traces, about %.0f s left", done, len(order), left)
    wrong = [name for name, logp in zip(frame["trace_id"], logps, strict=True) if not math.isfinite(logp)]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of {len(logps)} traces, such as {wrong[0]}, have no finite log-probability under {checkpoint} in "
            f"{settings.arithmetic} arithmetic: its logits are not finite. Train in float32 (no `bf16` or `lora`), or another one"
        )
    lengths = {"n_prompt_tokens": [start for _, start in whole], "n_tokens": [len(ids) - start for ids, start in whole]}
    write_table(pl.DataFrame({"trace_id": frame["trace_id"], "logp": logps, **lengths}), References, references)
