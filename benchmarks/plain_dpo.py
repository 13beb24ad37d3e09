"""What a user would write instead of this workflow: stock TRL on the pairs of one arm. `grid.py` starts it once for each arm."""

import argparse
import json

import polars as pl
import torch
from datasets import Dataset
from transformers import AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("base", "pairs", "output", "recipe"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("steps", "seed", "threads"):
        parser.add_argument(f"--{name}", required=True, type=int)
    given = parser.parse_args()
    recipe = json.loads(given.recipe)
    torch.set_num_threads(given.threads)
    set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    pairs = pl.read_parquet(given.pairs, columns=["prompt", "chosen", "rejected"])

    def turn(role: str, column: str) -> list[list[dict[str, str]]]:
        # Without white space in front, as the workflow trains on it.
        return [[{"role": role, "content": text.lstrip()}] for text in pairs[column]]

    columns = {"prompt": turn("user", "prompt"), "chosen": turn("assistant", "chosen"), "rejected": turn("assistant", "rejected")}
    settings = DPOConfig(
        output_dir=given.output,
        learning_rate=recipe["learning_rate"],
        beta=recipe["beta"],
        per_device_train_batch_size=recipe["batch_size"],
        max_steps=given.steps,
        lr_scheduler_type=recipe["schedule"],
        max_length=recipe["max_length"],
        seed=given.seed,
        # Its own best settings for a small model on a CPU.
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        # In one pass where the steps would visit every pair more than once.
        precompute_ref_log_probs=len(pairs) < given.steps * recipe["batch_size"],
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(given.base, args=settings, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
