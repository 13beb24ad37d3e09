"""Reference log-probabilities: once for each trace, shared by every arm, selection, seed and beta of a policy."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
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
    frame = read_table(traces, Traces)
    whole = tokenised(tokenizer, frame["prompt"].to_list(), frame["text"].to_list(), settings.chat)
    cut = [(ids[: settings.max_length], start) for ids, start in whole]
    logps = completion_sums(model, tokenizer, cut, run.batch_size, mixed=mixed)[:, 0].tolist()
    wrong = [name for name, logp in zip(frame["trace_id"], logps, strict=True) if not math.isfinite(logp)]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of {len(logps)} traces, such as {wrong[0]}, have no finite log-probability under {checkpoint} in "
            f"{settings.arithmetic} arithmetic: its logits are not finite. Train in float32 (no `bf16` or `lora`), or another one"
        )
    lengths = {"n_prompt_tokens": [start for _, start in whole], "n_tokens": [len(ids) - start for ids, start in whole]}
    write_table(pl.DataFrame({"trace_id": frame["trace_id"], "logp": logps, **lengths}), References, references)


def completion_sums(
    model: Any,
    tokenizer: Any,
    sequences: Sequence[tuple[list[int], int]],
    batch_size: int,
    *,
    temperature: float = 1.0,
    outputs: tuple[str, ...] = ("log_probs",),
    mixed: bool = False,
) -> NDArray[np.float64]:
    """(sequences, outputs): what TRL's fused head has for each completion token, summed over the completion (nats).

    ``sequences``: token ids, and where the completion begins. ``outputs``: `log_probs` and `entropy` of the softmax of the logits
    divided by ``temperature``. ``tokenizer`` pads on the right; batches hold sequences of similar length, the longest first.
    """
    add_fused_lm_head(model, temperature=temperature, outputs=outputs)  # as in training: the logits of a batch may not fit
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row][0]))
    sums = np.zeros((len(sequences), len(outputs)))
    started = time.monotonic()
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        batch = tokenizer.pad({"input_ids": [sequences[row][0] for row in rows]}, return_tensors="pt").to(model.device)
        positions = torch.arange(batch["input_ids"].shape[1], device=model.device)
        begins = torch.tensor([sequences[row][1] for row in rows], device=model.device)[:, None]
        completion = (positions >= begins) & batch["attention_mask"].bool()
        labels = batch["input_ids"].masked_fill(~completion, -100)
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
            found = model(**batch, labels=labels, fused_lm_head=True)
        for place, name in enumerate(outputs):
            sums[rows, place] = found[name].sum(1).cpu()
        done = begin + len(rows)
        left = (time.monotonic() - started) / done * (len(order) - done)
        log.info("log-probabilities of %d of %d texts, about %.0f s left", done, len(order), left)
    return sums
