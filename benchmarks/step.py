"""Tokens per second of a DPO run: our trainer (`train.trainers`: no padding, a prompt once for both sides) against stock TRL.

Random texts, lengths as the mix says. Both train the same Qwen-like model on the same batches, with references computed before
(what they cost is in `details`: stock TRL computes them for each run, we once for each trace), and must have equal losses. Timed
is `Trainer.train()` alone, on the CPU with one thread, as the workflow runs it. On a GPU: a model of Qwen2.5-0.5B's shape with
bfloat16 arithmetic and lengths as in reasoning traces; peak memory and MFU are told, too.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure import alternate, record
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import compute_flops_per_token, get_peak_flops

from prefdelta.train.packed import use_packed_forward
from prefdelta.train.trainers import StoredReferenceDPOTrainer

GPU = torch.cuda.is_available()
COMMAND = "python benchmarks/step.py"
RUNS = 3
# Tokens of the prompt and of a completion: from, to.
MIXES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "equal lengths": ((200, 200), (2000, 2000)) if GPU else ((32, 32), (128, 128)),
    "long prompt, short completions": ((4000, 4000), (200, 200)) if GPU else ((256, 256), (16, 48)),
    "widely differing lengths": ((50, 400), (1000, 8000)) if GPU else ((16, 64), (16, 384)),
}
GOALS = {"equal lengths": ">= 1", "long prompt, short completions": ">= 1.5", "widely differing lengths": ">= 1.5"}
SHAPE: dict[str, Any] = (
    {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    if GPU
    else {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
)
BATCH, STEPS = (4, 8) if GPU else (8, 4)


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for each token."""
    words = {"<pad>": 0, "<end>": 1, **{f"w{number}": number for number in range(2, SHAPE["vocab_size"])}}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def texts(mix: str) -> Dataset:
    """Pairs enough for all steps, the lengths spread evenly on a logarithmic scale."""
    rng = random.Random(mix)

    def words(shortest: int, longest: int) -> str:
        n = round(shortest * (longest / shortest) ** rng.random())
        return " ".join(f"w{rng.randrange(2, SHAPE['vocab_size'])}" for _ in range(n))

    prompt, completion = MIXES[mix]
    rows = [(words(*prompt), " " + words(*completion), " " + words(*completion)) for _ in range(BATCH * STEPS)]
    # TRL would add the end token to the last word.
    ended = [(one, f"{two} <end>", f"{three} <end>") for one, two, three in rows]
    return Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in ended])


def trainer(kind: type[DPOTrainer], data: Dataset, folder: Path, **switches: Any) -> DPOTrainer:
    """A trainer of a fresh model: float32 weights, on a GPU with bfloat16 arithmetic."""
    set_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2, max_position_embeddings=16384))
    arguments = {"output_dir": str(folder), "per_device_train_batch_size": BATCH, "max_steps": STEPS, "max_length": None}
    arguments |= {"learning_rate": 1e-4, "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    arguments |= {"gradient_checkpointing": GPU, "bf16": GPU, "use_cpu": not GPU, "precompute_ref_log_probs": True, **switches}
    made = kind(model, args=DPOConfig(**arguments), train_dataset=data, processing_class=tokenizer())
    made.remove_callback(PrinterCallback)
    return made


def timed(made: DPOTrainer) -> tuple[float, list[float], float]:
    """Seconds of the training, its losses, and peak GPU memory (GiB)."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    made.train()
    seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    return seconds, losses, torch.cuda.max_memory_allocated() / 2**30 if GPU else 0.0


def measure(mix: str, folder: Path) -> None:
    """Records one mix."""
    started = time.perf_counter()
    data = trainer(DPOTrainer, texts(mix), folder).train_dataset  # token ids, and references
    reference = time.perf_counter() - started
    n_tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in data)
    found: dict[str, tuple[float, list[float], float]] = {}

    def stock() -> float:
        found["stock"] = timed(trainer(PreparedDPOTrainer, data, folder))
        return found["stock"][0]

    def ours() -> float:
        made = trainer(StoredReferenceDPOTrainer, data, folder)
        assert use_packed_forward(made.model)
        found["ours"] = timed(made)
        return found["ours"][0]

    times = alternate(stock, ours, RUNS)
    if not GPU:
        torch.testing.assert_close(found["ours"][1], found["stock"][1], atol=1e-4, rtol=1e-4)
    rates = {who: n_tokens / min(column) for who, column in zip(("stock", "ours"), zip(*times, strict=True), strict=True)}
    details: dict[str, Any] = {f"tokens_per_second_{who}": round(rate) for who, rate in rates.items()}
    details["seconds_of_references_and_tokens_stock"] = round(reference, 2)
    details["largest_difference_in_loss"] = max(abs(a - b) for a, b in zip(found["ours"][1], found["stock"][1], strict=True))
    if GPU:
        config, length = Qwen2Config(**SHAPE, num_key_value_heads=2), n_tokens // (2 * len(data))
        peak = get_peak_flops(torch.cuda.get_device_name(), "bfloat16")
        for who, rate in rates.items():
            details[f"peak_memory_gib_{who}"] = round(found[who][2], 2)
            details[f"mfu_{who}"] = round(rate * compute_flops_per_token(config, length) / peak, 4) if peak else None
    what = "time of stock TRL's DPO steps / time of ours"
    ratios = [theirs / mine for theirs, mine in times]
    record(f"step, {mix}", COMMAND, ratios, GOALS[mix], what, ["torch", "transformers", "trl"], **details)


class PreparedDPOTrainer(DPOTrainer):
    """Stock, but that tokens and references are in the data set already: those are not what is timed."""

    _prepare_dataset = StoredReferenceDPOTrainer._prepare_dataset
    _precompute_ref_logps = StoredReferenceDPOTrainer._precompute_ref_logps


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for name in MIXES:
            measure(name, Path(temporary))
