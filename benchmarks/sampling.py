"""Completions of a small model: the transformers backend against plain `generate` of transformers.

Both sides complete the same prompts with the same model in the same process, on one thread, with the same batch size; what is
counted is generated tokens up to and with the end token, for each second of processor time. `generate` gets the prompts in the
given order, padded on the left, all samples of a prompt side by side, and a pad token for what has ended, as its documentation
has it. Loading, tokenisation and decoding count on both sides, imports on neither.

- mixed lengths: 64 prompts of 16 to 256 tokens (uniform on a logarithmic scale), 2 samples each, at temperature 1. The weights
  are random, so nearly every token is as likely as another, and 1 in 64 ends a text: lengths are geometric, 64 tokens in the
  mean, 256 at most. The two sides draw different texts, so the ratio has a spread that is not the machine's.
- equal lengths: 128 different prompts of 64 tokens, one greedy completion of 64 tokens each. There is nothing to save; the
  texts must be the same.

Not compared: a GPU, and engines that fill up batches with waiting prompts (the vllm backend is for them).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast, Qwen3Config

from prefdelta.generate.backend_transformers import complete
from prefdelta.generate.completions import Request
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling

COMMAND = "python benchmarks/sampling.py"
WORDS, ENDS, BATCH, RUNS = 1024, 16, 32, 5
SETTINGS = CheckpointSettings(backend="transformers", think=("", ""))
RUN = GenerationRun(batch_size=BATCH, model=ModelRun(), requests=RequestsRun())


def make_checkpoint(folder: Path) -> None:
    """A random Qwen-like model of half a million parameters; a token is a word, and the first `ENDS` of them end a text."""
    vocabulary = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{{ messages[0]['content'] }}"
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="w1", pad_token="w0", chat_template=template, padding_side="left"
    )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=WORDS,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=list(range(1, 1 + ENDS)),
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    made.save_pretrained(folder)


def plain(folder: Path, tokenizer: PreTrainedTokenizerFast, prompts: list[str], sampling: Sampling) -> list[tuple[str, int]]:
    """(text, tokens with the end token) of each completion by `generate`, in the order of ``prompts``."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    drawn = {"do_sample": True, "top_k": 0} if sampling.temperature else {"do_sample": False}
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(max_new_tokens=sampling.max_new_tokens, eos_token_id=ends, pad_token_id=0, **drawn)
    asked = [prompt for prompt in prompts for _ in range(sampling.samples)]
    found = []
    for begin in range(0, len(asked), BATCH):
        batch = tokenizer(asked[begin : begin + BATCH], padding=True, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :].tolist()
        for tokens in output:
            end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            found.append((tokenizer.decode(tokens[:end], skip_special_tokens=True), min(end + 1, len(tokens))))
    return found


def ours(folder: Path, prompts: list[str], sampling: Sampling) -> list[tuple[str, int]]:
    """The same by the transformers backend."""
    requests = [Request(prompt, prompt, sampling) for prompt in prompts]
    made = complete(requests, settings=SETTINGS, run=RUN, checkpoint=folder, seed=0, threads=1, log_file=Path())
    return [(completion.text, completion.n_tokens) for several in made for completion in several]


def compare(name: str, goal: str, folder: Path, prompts: list[str], sampling: Sampling, same: bool) -> None:
    """Measures and records; both sides must give the ``same`` completions."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts: dict[str, list[tuple[str, int]]] = {}

    def speed(side: str, call: Callable[[], list[tuple[str, int]]]) -> float:
        started = time.process_time()
        texts[side] = call()
        return sum(n_tokens for _, n_tokens in texts[side]) / (time.process_time() - started)

    torch.manual_seed(0)
    pairs = measure.alternate(
        lambda: speed("plain", lambda: plain(folder, tokenizer, prompts, sampling)),
        lambda: speed("ours", lambda: ours(folder, prompts, sampling)),
        RUNS,
    )
    if same and texts["plain"] != texts["ours"]:
        sys.exit(f"{name}: the two sides differ")
    lengths = {f"mean tokens, {side}": round(statistics.mean(n for _, n in found), 1) for side, found in texts.items()}
    speeds = [round(statistics.median(side)) for side in zip(*pairs, strict=True)]
    measure.record(
        f"sampling, {name}",
        COMMAND,
        [second / first for first, second in pairs],
        goal,
        "tokens/s of processor time, transformers backend over plain `generate`",
        ["torch", "transformers"],
        batch_size=BATCH,
        **{"tokens/s, plain": speeds[0], "tokens/s, ours": speeds[1], **lengths},
    )


def main() -> None:
    """Both benchmarks."""
    torch.set_num_threads(1)
    rng = random.Random(0)

    def prompt(length: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS // 2, WORDS)}" for _ in range(length))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder)
        mixed = [prompt(int(2 ** rng.uniform(4, 8))) for _ in range(64)]
        equal = [prompt(64) for _ in range(128)]
        sampled = Sampling(samples=2, temperature=1.0, max_new_tokens=256)
        greedy = Sampling(samples=1, temperature=0.0, max_new_tokens=64)
        ours(folder, equal[:1], greedy)  # imports what the model needs
        compare("mixed lengths", ">= 2", folder, mixed, sampled, same=False)
        compare("equal lengths", ">= 1", folder, equal, greedy, same=True)


if __name__ == "__main__":
    main()
