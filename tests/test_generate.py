"""Sampling from a checkpoint, and reference log-probabilities, with a small random model."""

import random

import build
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from prefdelta.generate import Sampler
from prefdelta.manifest import ManifestError, write_manifest
from prefdelta.microworld.pretrain import make_model, make_tokenizer
from prefdelta.microworld.problems import draw, render
from prefdelta.reference import compute_reference
from prefdelta.tables import References, Traces, read_table, write_table

RNG = random.Random(0)
PROMPTS = [render(draw(RNG.choice(["arithmetic", "story"]), RNG.randint(1, 4), RNG), RNG) for _ in range(9)]
LIMIT = 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    make_model("qwen3", 16, 1, 2, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_manifest(folder / "manifest.json", {})
    return folder


@pytest.fixture(scope="module")
def sampler(checkpoint):
    return Sampler(checkpoint, threads=1)


def sample(sampler, prompts=PROMPTS, n=3, temperature=1.0, batch_size=8, seed=0, limit=LIMIT):
    limits = {"max_new_tokens": limit, "batch_size": batch_size, "seed": seed}
    return sampler.sample(prompts, n=n, temperature=temperature, **limits)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(sampler):
    first, again, other = sample(sampler), sample(sampler), sample(sampler, seed=1)
    assert first == again
    assert first != other


def test_every_prompt_has_its_samples_and_they_differ(sampler):
    samples = sample(sampler)
    assert [len(several) for several in samples] == [3] * len(PROMPTS)
    assert all(len(set(several)) > 1 for several in samples)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_greedy_answers_follow_the_order_of_prompts_and_do_not_depend_on_batches(sampler, batch_size):
    alone = [sample(sampler, [prompt], n=1, temperature=0.0)[0] for prompt in PROMPTS]
    assert sample(sampler, n=1, temperature=0.0, batch_size=batch_size, seed=5) == alone
    assert len({answers[0].text for answers in alone}) > 1
    assert sample(sampler, PROMPTS[::-1], n=1, temperature=0.0, batch_size=batch_size) == alone[::-1]


def test_a_completion_is_greedy_where_each_token_is_the_most_likely(sampler, checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = make_tokenizer()
    start = tokenizer(f"<user>{PROMPTS[0]}<assistant>")["input_ids"]
    ids = list(start)
    while len(ids) < len(start) + LIMIT and ids[-1] != tokenizer.eos_token_id:
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    (found,) = sample(sampler, PROMPTS[:1], n=1, temperature=0.0)[0]
    assert found.text == tokenizer.decode(ids[len(start) :], skip_special_tokens=True)
    assert found.n_tokens == len(ids) - len(start)


def test_the_finish_reason_says_whether_the_end_token_came_within_the_limit(sampler):
    completions = [completion for several in sample(sampler, n=20) for completion in several]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert "<" not in completion.text
        assert 1 <= completion.n_tokens <= LIMIT
        assert completion.finish_reason == "stop" or completion.n_tokens == LIMIT
    stopped = [completion.n_tokens for completion in completions if completion.finish_reason == "stop"]
    assert min(stopped) < LIMIT


def test_a_lower_limit_cuts_the_same_greedy_text_short(sampler):
    (whole,), (cut,) = (sample(sampler, PROMPTS[:1], n=1, temperature=0.0, limit=limit)[0] for limit in (LIMIT, 4))
    assert whole.text.startswith(cut.text)
    assert (cut.n_tokens, cut.finish_reason) == (4, "length")


@pytest.fixture(scope="module")
def traces():
    made = build.traces(n_prompts=7, samples=2, faults={"signal_to_noise": 0.5})
    return made.with_columns(text=pl.when(pl.int_range(len(made)) == 3).then(pl.lit("#")).otherwise("text"))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_references_are_the_summed_log_probabilities_of_the_completions(checkpoint, traces, tmp_path, batch_size):
    write_table(traces, Traces, tmp_path / "traces.parquet")
    arguments = (tmp_path / "traces.parquet", checkpoint / "manifest.json", tmp_path / "reference.parquet")
    compute_reference(*arguments, batch_size=batch_size, threads=1)
    found = read_table(tmp_path / "reference.parquet", References)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint).eval(), make_tokenizer()
    assert found["trace_id"].equals(traces["trace_id"])
    for row, (prompt, text) in zip(found.iter_rows(named=True), traces.select("prompt", "text").iter_rows(), strict=True):
        start, ids = (tokenizer(t)["input_ids"] for t in (f"<user>{prompt}<assistant>", f"<user>{prompt}<assistant>{text}<end>"))
        with torch.inference_mode():
            logps = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        plain = sum(float(logps[position - 1, ids[position]]) for position in range(len(start), len(ids)))
        assert row["logp"] == pytest.approx(plain, abs=1e-4)
        assert (row["n_prompt_tokens"], row["n_tokens"]) == (len(start), len(ids) - len(start))


def test_references_of_a_checkpoint_that_was_changed_are_refused(checkpoint, traces, tmp_path):
    write_table(traces, Traces, tmp_path / "traces.parquet")
    write_manifest(tmp_path / "manifest.json", {})
    write_table(traces.head(2), Traces, tmp_path / "traces.parquet")
    with pytest.raises(ManifestError, match=r"traces.parquet has changed"):
        compute_reference(
            tmp_path / "traces.parquet", tmp_path / "manifest.json", tmp_path / "out.parquet", batch_size=4, threads=1
        )
