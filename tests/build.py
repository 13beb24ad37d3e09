"""Small valid tables and configurations, from which a test changes one thing."""

import copy
import json
import random
from pathlib import Path

import polars as pl
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prefdelta.microworld.authors import write
from prefdelta.microworld.problems import final_answer, random_problem, render
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.models import Author
from prefdelta.tables.checksum import seal_parquet
from prefdelta.tables.io import sink_batches
from prefdelta.tables.stages import Pairs, Traces

CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"


def unchecked(frame, path):
    """Writes ``frame`` as a table with a checksum whatever breaks its model."""
    sink_batches([frame], path)
    seal_parquet(path)


def traces(generator="g", n_prompts=3, samples=2, faults=None, correct=None):
    """`Traces` of an author on arithmetic problems, the same ones for every generator; ``correct`` (by row) overrides."""
    problem_rng, author_rng = random.Random(0), random.Random(generator)
    problems = [random_problem("arithmetic", problem_rng.randint(2, 4), problem_rng) for _ in range(n_prompts)]
    rows = []
    for number, problem in enumerate(problems):
        for sample in range(samples):
            text = write(problem, Author(**(faults or {})), author_rng)
            answer = final_answer(text)
            rows.append(
                {
                    "trace_id": f"q{number}:{generator}:{sample}",
                    "prompt_id": f"q{number}",
                    "generator": generator,
                    "sample": sample,
                    "prompt": render(problem, problem_rng),
                    "text": text,
                    "reasoning": text.rpartition(";")[0],
                    "response": text.rpartition(";")[2],
                    "answer": answer,
                    "correct": correct[len(rows)] if correct else answer == problem.answer,
                    "n_tokens": len(text),
                    "finish_reason": "stop",
                }
            )
    return pl.DataFrame(rows).select(list(Traces.to_schema().columns))


def ratings(traces, levels, names=DIMENSIONS):
    """`Ratings` in which ``levels(trace_id, dimension)`` gives the repeats of a trace (None: could not be read)."""
    rows = [
        (trace_id, "j", dimension, repeat, level, "not JSON" if level is None else None)
        for trace_id in traces["trace_id"]
        for dimension in names
        for repeat, level in enumerate(levels(trace_id, dimension))
    ]
    names = {"trace_id": pl.String, "judge": pl.String, "dimension": pl.String, "repeat": pl.Int64, "rating": pl.Int64}
    return pl.DataFrame(rows, schema={**names, "reason": pl.String}, orient="row")


def pairs(n, seed=0, per_prompt=2, correct=None, rated=THE_FIVE):
    """``n`` `Pairs` with random ratings from 1 to 5; ``correct`` gives (chosen, rejected) by row, else it is random."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        prompt, right = i // per_prompt, correct[i] if correct else (rng.random() < 0.5, rng.random() < 0.5)
        row = {"pair_id": f"c{i}|r{i}", "prompt_id": f"q{prompt}", "prompt": f"prompt {prompt}", "judge": "j"}
        for side, is_right in zip(("chosen", "rejected"), right, strict=True):
            means = {name: rng.randint(5, 25) / 5 for name in rated.names}
            means["overall"] = sum(means.values()) / len(rated.names)
            row |= {f"{side}_generator": side[0], f"{side}_trace_id": f"{side[0]}{i}", side: f"{side} text {i}"}
            row |= {f"{side}_correct": is_right, f"{side}_tokens": rng.randint(1, 80)}
            row |= {f"{side}_{name}": mean for name, mean in means.items()}
        row |= {f"delta_{name}": row[f"chosen_{name}"] - row[f"rejected_{name}"] for name in rated.criteria}
        rows.append(row)
    return pl.DataFrame(rows).select(list(Pairs.by(rated).to_schema().columns))


# A rubric of its own, as a configuration has it.
TWO = {
    "scale": [0, 10],
    "dimensions": [
        {"name": "clarity", "question": "Is it clear?", "levels": {"0": "not at all", "10": "throughout"}},
        {"name": "correctness", "question": "Is it right?", "levels": {"0": "nothing is", "5": "some is", "10": "all is"}},
    ],
}


def predictor(path, **changes):
    """Writes a predictor that expects more of a larger delta, in both terms."""
    features = {"delta": 0.4, "generator_delta": 0.3, "chosen_over_policy": 0.2}
    features = {name: {"mean": 0.1, "sd": 0.5, "coefficient": slope} for name, slope in features.items()}
    made = {"study": "other", "suite": "out_of_domain", "made_by": "a test", "n_arms": 60, "intercept": 0.5}
    path.write_text(json.dumps({**made, "held_out_error": 0.2, "features": features, **changes}))
    return path


def result(arm, versus, estimate, decoding="sampled", p=0.001, **changes):
    """A row of `Results`: of ``arm``, whose chosen generator has its name, against ``versus``."""
    row = {
        "experiment": "ladder",
        "arm": arm,
        "policy": "policy",
        "method": "dpo",
        "judge": "j",
        "chosen": arm,
        "rejected": "worst",
        "selection": "full",
        "suite": "ood",
        "decoding": decoding,
        "estimate": estimate,
        "ci_low": estimate - 2,
        "ci_high": estimate + 2,
        "versus": versus,
        "standard_error": 1.0,
        "freedom": 20.0,
        "primary": None if versus is None else False,
        "p_value": None if versus is None else p,
        "p_holm": None if versus is None else min(1, 3 * p),
        "adjusted_low": None if versus is None else estimate - 3,
        "adjusted_high": None if versus is None else estimate + 3,
        "p_mcnemar": 0.4 if decoding == "greedy" and versus else None,
        "n_gained": 6.0 if decoding == "greedy" and versus else None,
        "n_lost": 4.0 if decoding == "greedy" and versus else None,
        "minimum_detectable": None if versus is None else 3.0,
        "n_items": 100,
        "n_seeds": 3,
        "n_pairs": 10,
        "n_tokens": 1000,
        "n_steps": 5,
        "n_chosen_truncated": 0,
        "n_rejected_truncated": 0,
        "generator_delta": 10.0,
        "mean_delta": 1.0,
        "correct_delta": 20.0,
        "n_identical": 1,
    }
    return row | changes


def config(**experiment):
    """The default study as a fresh dictionary, with `generator_delta` as its only experiment; ``experiment`` changes that."""
    content = copy.deepcopy(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))
    content["experiments"] = {"generator_delta": content["experiments"]["generator_delta"] | experiment}
    return content


# Like DeepSeek-R1's: reasoning of assistant turns is dropped, and `{think}` may open the next one.
REASONING_TEMPLATE = (
    "{{{{ bos_token }}}}{{% for message in messages %}}{{% if message['role'] == 'assistant' %}}"
    "<|assistant|>{{{{ message['content'].split('</think>')[-1] }}}}<|end|>"
    "{{% else %}}<|{{{{ message['role'] }}}}|>{{{{ message['content'] }}}}{{% endif %}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|assistant|>{think}{{% endif %}}"
)


def checkpoint(folder, tokenizer, family="qwen3", layers=1):
    """Saves a small untrained model and its tokenizer in ``folder``."""
    import torch

    from prefdelta.microworld.pretrain import make_model

    torch.manual_seed(0)
    make_model(family, 16, layers, 2, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def overflowing(checkpoint, folder, weight=3e38):
    """Saves in ``folder`` the model of ``checkpoint`` with a ``weight`` that is finite, by default, but whose logits are not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    torch.nn.init.constant_(model.model.norm.weight, weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)


def reasoning_tokenizer(think="", special=()):
    """A tokenizer of bytes whose chat template drops reasoning. A prompt ends with ``think``; ``special`` are further tokens.

    Like Llama's, it puts a token before every text that is not said to have its special tokens already.
    """
    names = ["<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", *special]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*names, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    words = {"bos_token": names[0], "eos_token": names[1], "pad_token": names[2], "additional_special_tokens": names[3:]}
    template = REASONING_TEMPLATE.format(think=think)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, clean_up_tokenization_spaces=False, **words
    )
