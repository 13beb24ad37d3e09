"""Language models of the micro-world, trained from scratch into ordinary transformers checkpoints."""

import json
import logging
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, set_seed

from prefdelta.checkpoints.load import load_model, not_finite
from prefdelta.checkpoints.manifest import checked_folder, write_manifest
from prefdelta.checkpoints.settings import PretrainSettings
from prefdelta.judge.rubric import messages
from prefdelta.microworld.authors import FILLER, write
from prefdelta.microworld.habits import Habit, habits
from prefdelta.microworld.oracle import grade, review
from prefdelta.microworld.problems import LABELS, NAMES, OPERATOR_OF_VERB, held_out, random_problem, render
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS, PAPER
from prefdelta.study.models import Author

log = logging.getLogger(__name__)


class PretrainError(PrefdeltaError):
    """A training from scratch has gone wrong; the message says at which step."""


HEAD_SIZE = 32  # the smallest that the attention kernels of inference engines take; independent of the width
SPECIAL = ("<pad>", "<user>", "<assistant>", "<end>", "<unknown>")
TOKEN = r"[a-h]\)| ?[A-Za-z]+|."  # a label, a word with the space before it, or a single character
# What stands around a problem and a trace in a judge's message, with the fences in pairs of digits; and the pieces of its answer.
JUDGING = (
    *("<problem ", "\n</problem ", "\n<trace ", "\n</trace ", ">", "\n"),
    *(f'{", " if place else "{"}"{dimension}": ' for place, dimension in enumerate(DIMENSIONS)),
    "}",
)
FENCE = [f"{byte:02x}" for byte in range(256)]
JUDGING_TOKEN = "|".join([*map(re.escape, JUDGING), "[0-9a-f]{2}(?=[0-9a-f]*>)", TOKEN])
CHAT_TEMPLATE = (  # a rubric (system) is English, which no model here reads: a judge has learned what it asks for
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>{% generation %}{{ message['content'] }}<end>{% endgeneration %}"
    "{% elif message['role'] == 'user' %}<user>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
Writes = Literal["traces", "ratings"]
PATTERN: dict[Writes, str] = {"traces": TOKEN, "ratings": JUDGING_TOKEN}
FAMILIES = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def make_tokenizer(writes: Writes = "traces") -> PreTrainedTokenizerFast:
    """A tokenizer of digits, signs and the world's words, whose chat template ends an assistant turn with ``<end>``.

    That of a model that ``writes`` ratings knows the words of a judge's message and answer, too.
    """
    words = [*NAMES, " has", *OPERATOR_OF_VERB, "x", " to", " left", *(f"{label})" for label in LABELS)]
    words += sorted({word for filler in FILLER for word in re.findall(TOKEN, filler)})
    words += [*JUDGING, *FENCE] if writes == "ratings" else []
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *"0123456789+-*=;# ", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN[writes]), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unknown>",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=256,
    )


def make_model(family: str, hidden_size: int, layers: int, heads: int, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained model of ``family`` (a key of `FAMILIES`), in float32, with tied embeddings."""
    config = FAMILIES[family](
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_SIZE,
        max_position_embeddings=256,
        # The usual 0.02 and 10,000 are for wide models and long texts: with them a model of width 64 had not learned to copy
        # from its prompt after 900 steps, with these it had after 500.
        initializer_range=hidden_size**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def corpus(
    n: int,
    authors: list[tuple[float, Author]],
    shared: list[Habit],
    domains: list[str],
    operations: tuple[int, int],
    writes: Writes,
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
) -> list[tuple[list[int], int]]:
    """``n`` training texts as (token ids, length of the prompt part). Problems that are held out for evaluation are left out.

    The completion is an author's trace, or (``writes`` ratings) a review of one and the oracle's levels, rounded, as a judge
    writes them.
    """
    vocabulary = tokenizer.get_vocab()
    weights, writers = [weight for weight, _ in authors], [author for _, author in authors]
    texts: list[tuple[list[int], int]] = []
    while len(texts) < n:
        problem = random_problem(rng.choice(domains), rng.randint(*operations), rng)
        prompt = render(problem, rng)
        if held_out(prompt):
            continue
        # The chat template written out, and looked up without the tokenizer's own overhead: a corpus has 100,000 texts.
        trace = write(problem, rng.choices(writers, weights)[0], rng, shared)
        if writes == "ratings":
            levels = {dimension: round(score) for dimension, score in grade(problem, trace).items()}
            # Ratings alone are not learned: after 38,000 texts, all dimensions but one were rated almost at random.
            prompt, trace = messages(PAPER, DIMENSIONS, prompt, trace)[-1]["content"], review(problem, trace) + json.dumps(levels)
        asked = ["<user>", *re.findall(PATTERN[writes], prompt), "<assistant>"]
        ids = [vocabulary[token] for token in [*asked, *re.findall(PATTERN[writes], trace), "<end>"]]
        texts.append((ids, len(asked)))
    return texts


def pretrain_model(manifest: Path, start: Path | None = None, *, settings: PretrainSettings, threads: int) -> None:
    """Trains a model on what authors write, from scratch or from the checkpoint of ``start`` (its manifest) on; saves it with
    tokenizer beside its manifest.

    It learns to write such traces, or (``writes`` ratings) to review and rate them as the exact oracle would. AdamW with 50 steps
    of warm-up (10 after a start) and a cosine decay; the loss is on completions only. Raises PretrainError where it is not
    finite.
    """
    torch.set_num_threads(threads)
    set_seed(settings.seed)
    rng = random.Random(settings.seed)
    tokenizer = make_tokenizer(settings.writes)
    if start:
        model = load_model(checked_folder(start), torch.float32)
    else:
        model = make_model(settings.family, settings.hidden_size, settings.layers, settings.heads, tokenizer)
    warmup = 10 if start else 50
    steps, batch_size = settings.steps, settings.batch_size
    problems = (settings.authors, habits(settings.world), settings.domains, settings.operations)
    texts = corpus(steps * batch_size, *problems, settings.writes, tokenizer, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / warmup) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
    )
    losses = []
    started = told = time.monotonic()
    for step, batch in enumerate(_batches(texts, batch_size, rng), start=1):
        width = max(len(tokens) for tokens, _ in batch)
        ids = torch.tensor([tokens + [tokenizer.pad_token_id] * (width - len(tokens)) for tokens, _ in batch])
        begins, ends = torch.tensor([(n_prompt, len(tokens)) for tokens, n_prompt in batch]).split(1, dim=1)
        positions = torch.arange(1, width)
        on_trace = (positions >= begins) & (positions < ends)
        # Padding stands on the right and attention is causal, so no mask is needed.
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[on_trace]), ids[:, 1:][on_trace])
        optimizer.zero_grad()
        if not loss.isfinite():
            raise PretrainError(
                f"the loss of step {step} of {manifest.parent} is {loss.item()}: lower the model's `learning_rate`"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(round(loss.item(), 5))
        if time.monotonic() - told > 5 or step == steps:
            told = time.monotonic()
            left = (told - started) / step * (steps - step)
            log.info("step %d of %d, loss %.4f, about %.0f s left", step, steps, losses[-1], left)
    if name := not_finite(dict(model.named_parameters())):
        raise PretrainError(f"the weight {name} of {manifest.parent} is not finite: lower the model's `learning_rate`")
    model.save_pretrained(manifest.parent)
    tokenizer.save_pretrained(manifest.parent)
    made = settings.model_dump(include={"family", "hidden_size", "layers", "steps", "seed"})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_manifest(manifest, {**made, "parameters": parameters, "losses": losses[:: max(1, steps // 100)]})


def _batches(texts: list[tuple[list[int], int]], batch_size: int, rng: random.Random) -> Iterator[list[tuple[list[int], int]]]:
    """Batches of texts of similar length (sorted within 16 batches), in random order."""
    window = 16 * batch_size
    for begin in range(0, len(texts), window):
        near = sorted(texts[begin : begin + window], key=lambda text: len(text[0]))
        batches = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        rng.shuffle(batches)
        yield from batches
