"""Sampling from a checkpoint, with a small random model."""

import random
from pathlib import Path

import build
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig

from prefdelta.checkpoints.load import CheckpointError
from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.evaluate.predictions import evaluate_model
from prefdelta.generate.backend_dataset import _whole
from prefdelta.generate.completions import GenerateError, Request, complete
from prefdelta.generate.settings import CheckpointSettings, DatasetSettings, GenerationRun, PredictionsSettings, TracesSettings
from prefdelta.generate.traces import TracesError, sample_traces
from prefdelta.microworld.pretrain import make_model, make_tokenizer
from prefdelta.microworld.problems import random_problem, render
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Predictions, Prompts, Traces

RNG = random.Random(0)
PROMPTS = [render(random_problem(RNG.choice(["arithmetic", "story"]), RNG.randint(1, 4), RNG), RNG) for _ in range(9)]
MANY = [render(random_problem(RNG.choice(["arithmetic", "story"]), RNG.randint(1, 8), RNG), RNG) for _ in range(24)]
LIMIT = 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    build.checkpoint(folder, make_tokenizer())
    write_manifest(folder / "manifest.json", {})
    return folder


def sampling(n=3, temperature=1.0, limit=LIMIT, **words):
    return Sampling(samples=n, temperature=temperature, max_new_tokens=limit, **words)


def sample(checkpoint, prompts=PROMPTS, n=3, temperature=1.0, batch_size=8, seed=0, limit=LIMIT, **settings):
    requests = [Request(str(number), prompt, sampling(n, temperature, limit)) for number, prompt in enumerate(prompts)]
    return ask(checkpoint, requests, batch_size=batch_size, seed=seed, **settings)


def ask(checkpoint, requests, batch_size=8, seed=0, **settings):
    job = {"run": how(batch_size), "checkpoint": checkpoint, "seed": seed, "threads": 1, "log_file": Path("log")}
    return complete(requests, settings=CheckpointSettings(backend="transformers", **settings), **job)


def how(batch_size=8):
    return GenerationRun(batch_size=batch_size, model=ModelRun(gpus=0), requests=RequestsRun())


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(checkpoint):
    first, again, other = sample(checkpoint), sample(checkpoint), sample(checkpoint, seed=1)
    assert first == again
    assert first != other


def test_every_prompt_has_its_samples_and_they_differ(checkpoint):
    samples = sample(checkpoint)
    assert [len(several) for several in samples] == [3] * len(PROMPTS)
    assert all(len(set(several)) > 1 for several in samples)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_samples_do_not_depend_on_how_many_are_made_at_a_time_nor_on_what_else_is_asked(checkpoint, batch_size):
    together = sample(checkpoint)
    assert sample(checkpoint, batch_size=batch_size) == together
    # Of more prompts, in another order, and with more samples of each, the same ones are the same.
    more = ask(checkpoint, [Request(str(n), PROMPTS[n], sampling(5)) for n in reversed(range(len(PROMPTS)))])
    assert [several[:3] for several in reversed(more)] == together


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_greedy_answers_follow_the_order_of_prompts_and_do_not_depend_on_batches(checkpoint, batch_size):
    alone = [sample(checkpoint, [prompt], n=1, temperature=0.0)[0] for prompt in PROMPTS]
    assert sample(checkpoint, n=1, temperature=0.0, batch_size=batch_size, seed=5) == alone
    assert len({answers[0].text for answers in alone}) > 1
    assert sample(checkpoint, PROMPTS[::-1], n=1, temperature=0.0, batch_size=batch_size) == alone[::-1]


def test_a_completion_is_greedy_where_each_token_is_the_most_likely(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = make_tokenizer()
    start = tokenizer(f"<user>{PROMPTS[0]}<assistant>")["input_ids"]
    ids = list(start)
    while len(ids) < len(start) + LIMIT and ids[-1] != tokenizer.eos_token_id:
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    (found,) = sample(checkpoint, PROMPTS[:1], n=1, temperature=0.0)[0]
    assert found.text == tokenizer.decode(ids[len(start) :], skip_special_tokens=True)
    assert found.n_tokens == len(ids) - len(start)


def windowed(tokenizer):
    """A model whose attention reaches back 8 tokens, with fewer heads of keys than of queries."""
    words = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=8, **words)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", ["qwen3", "llama", "sliding window"])
def test_greedy_answers_are_those_of_transformers_though_rows_leave_the_batch(family, tmp_path):
    torch.manual_seed(2)
    tokenizer = make_tokenizer()
    model = windowed(tokenizer) if family == "sliding window" else make_model(family, 32, 2, 2, tokenizer)
    for weights in model.model.layers.parameters():
        weights.data *= 4  # else a random model repeats one token
    ends = list(range(3, len(tokenizer), 12))  # some rows end early, some late, some at the limit
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=0, do_sample=False, max_new_tokens=LIMIT)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = tokenizer([f"<user>{prompt}<assistant>" for prompt in MANY], padding=True, return_tensors="pt")
    expected = []
    for tokens in model.eval().generate(**asked)[:, asked["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(tokens) if token in {*ends, tokenizer.eos_token_id}), None)
        text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
        expected.append((text, LIMIT if end is None else end + 1, "length" if end is None else "stop"))
    found = [one for several in sample(tmp_path, MANY, n=1, temperature=0.0, batch_size=len(MANY)) for one in several]
    assert [(one.text, one.n_tokens, one.finish_reason) for one in found] == expected
    assert len({n_tokens for _, n_tokens, _ in expected}) > 3


def test_tokens_are_drawn_as_often_as_the_model_and_the_sampling_say(checkpoint):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint).eval(), make_tokenizer()
    logits = model(**tokenizer(f"<user>{PROMPTS[0]}<assistant>", return_tensors="pt")).logits[0, -1].detach() / 0.3
    logits[logits < logits.topk(5).values[-1]] = -torch.inf
    drawn = Request("", PROMPTS[0], sampling(4000, 0.3, limit=1, top_k=5))
    ((*completions,),) = ask(checkpoint, [drawn], batch_size=500)
    texts = [completion.text for completion in completions]
    for token, share in enumerate(logits.softmax(0).tolist()):
        if share and token not in tokenizer.all_special_ids:
            assert texts.count(tokenizer.decode(token)) / len(texts) == pytest.approx(share, abs=0.03)
    assert len(set(texts)) > 2


def test_the_finish_reason_says_whether_the_end_token_came_within_the_limit(checkpoint):
    completions = [completion for several in sample(checkpoint, n=20) for completion in several]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert "<" not in completion.text
        assert 1 <= completion.n_tokens <= LIMIT
        assert completion.finish_reason == "stop" or completion.n_tokens == LIMIT
    stopped = [completion.n_tokens for completion in completions if completion.finish_reason == "stop"]
    assert min(stopped) < LIMIT


def test_a_lower_limit_cuts_the_same_greedy_text_short(checkpoint):
    (whole,), (cut,) = (sample(checkpoint, PROMPTS[:1], n=1, temperature=0.0, limit=limit)[0] for limit in (LIMIT, 4))
    assert whole.text.startswith(cut.text)
    assert (cut.n_tokens, cut.finish_reason) == (4, "length")


def test_requests_of_different_sampling_are_answered_in_their_order(checkpoint):
    both = [Request(str(n), prompt, sampling(2) if n % 2 else sampling(1, 0.0)) for n, prompt in enumerate(PROMPTS)]
    found = ask(checkpoint, both)
    assert [len(several) for several in found] == [2 if n % 2 else 1 for n in range(len(PROMPTS))]
    assert found[::2] == sample(checkpoint, PROMPTS[::2], n=1, temperature=0.0)
    assert found[1::2] == ask(checkpoint, both[1::2])


def test_greedy_is_what_top_k_of_one_and_a_tiny_top_p_leave(checkpoint):
    greedy = sample(checkpoint, n=1, temperature=0.0)
    for words in ({"top_k": 1}, {"top_p": 1e-6}):
        assert ask(checkpoint, [Request("", prompt, sampling(1, 1.0, **words)) for prompt in PROMPTS]) == greedy


@pytest.mark.parametrize("temperature", [0, 1])
def test_from_logits_that_are_not_finite_nothing_is_drawn(checkpoint, tmp_path, temperature):
    build.overflowing(checkpoint, tmp_path)
    with pytest.raises(CheckpointError, match=rf"the model of {tmp_path} gives logits that are not finite in torch\.float32"):
        sample(tmp_path, temperature=temperature)


def test_a_checkpoint_with_a_weight_that_is_no_number_samples_nothing(checkpoint, tmp_path):
    build.overflowing(checkpoint, tmp_path, float("nan"))
    with pytest.raises(CheckpointError, match=rf"the weight model\.norm\.weight of {tmp_path} is not finite"):
        sample(tmp_path)


def test_marks_tell_reasoning_from_response(checkpoint):
    for several in sample(checkpoint, n=10):
        for found in several:
            assert found.response == found.text.rpartition(";")[2]
            assert found.reasoning == found.text.rpartition(";")[0]
    whole = sample(checkpoint, think=("", ""))[0][0]
    assert (whole.reasoning, whole.response) == ("", whole.text)


@pytest.fixture(scope="module")
def reasoner(tmp_path_factory):
    """A random model with a tokenizer of bytes, whose prompts end with an open mark, and two tokens that end a text."""
    folder = tmp_path_factory.mktemp("reasoner")
    tokenizer = build.reasoning_tokenizer("<think>\n", special=("<think>", "</think>"))
    torch.manual_seed(0)
    model = make_model("qwen3", 16, 1, 2, tokenizer)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("7")]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_any_of_a_models_end_tokens_ends_a_text_and_special_marks_are_found(reasoner):
    settings = {"think": ("<think>", "</think>"), "system": "Think."}
    completions = [c for several in sample(reasoner, ["4+3?"], n=200, limit=60, **settings) for c in several]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    stopped = [c for c in completions if c.finish_reason == "stop"]
    assert all(c.n_tokens == 60 for c in completions if c.finish_reason == "length")
    assert not any(c.text.endswith("7") and c.n_tokens == 60 for c in stopped)
    assert not any("7" in c.text or "<|end|>" in c.text for c in completions)
    thought = [c for c in completions if "</think>" in c.text]
    assert thought
    for c in thought:
        assert c.text == f"<think>\n{c.reasoning}\n</think>\n\n{c.response}"
    unfinished = [c for c in completions if "</think>" not in c.text]
    assert all(c.response == "" and c.reasoning for c in unfinished if c.finish_reason == "length")


def test_a_system_prompt_reaches_the_model(reasoner):
    alone, told = (sample(reasoner, ["4+3?"], n=1, temperature=0.0, system=system) for system in (None, "Think."))
    assert alone != told


def problems(folder, split="train", n=3):
    rng = random.Random(1)
    drawn = [random_problem("arithmetic", 2, rng) for _ in range(n)]
    rows = [(f"{split}{number}", split, "arithmetic", render(p, rng), str(p.answer)) for number, p in enumerate(drawn)]
    frame = pl.DataFrame(rows, schema=["prompt_id", "split", "task", "prompt", "answer"], orient="row")
    write_table(frame, Prompts, folder / f"{split}.parquet")
    return folder / f"{split}.parquet"


def test_traces_are_scored_completions_of_every_prompt(checkpoint, tmp_path):
    files = (problems(tmp_path), checkpoint / "manifest.json", [], tmp_path / "traces.parquet")
    settings = TracesSettings(generator="g", backend=CheckpointSettings(backend="transformers"), sampling=sampling(2), seed=0)
    sample_traces(*files, settings=settings, run=how(), threads=1, log_file=tmp_path / "log")
    found = read_table(tmp_path / "traces.parquet", Traces)
    assert found["trace_id"].to_list() == [f"train{number}:g:{sample}" for number in range(3) for sample in range(2)]
    answers = dict(read_table(files[0], Prompts).select("prompt_id", "answer").iter_rows())
    for row in found.iter_rows(named=True):
        assert row["text"] == row["reasoning"] + ";" * (";" in row["text"]) + row["response"]
        assert row["correct"] == (row["answer"] == answers[row["prompt_id"]])


def test_a_generator_without_any_trace_is_an_error(tmp_path):
    # A data set that holds none of the prompts.
    (tmp_path / "base").mkdir()
    build.reasoning_tokenizer().save_pretrained(tmp_path / "base")
    write_manifest(tmp_path / "base" / "manifest.json", {})
    columns = {"problem": ["What is 4 + 3?"], "generations": [["7"]], "right": [[True]]}
    pl.DataFrame(columns).write_parquet(tmp_path / "set.parquet")
    columns = {"problem": "problem", "generations": "generations", "correct": ["right"], "complete": None}
    backend = DatasetSettings(repo=str(tmp_path / "set.parquet"), **columns, think=("<think>", "</think>"))
    files = (problems(tmp_path), tmp_path / "base" / "manifest.json", [], tmp_path / "traces.parquet")
    settings = TracesSettings(generator="r1", backend=backend, sampling=sampling(1), seed=0)
    with pytest.raises(TracesError, match="generator r1 gave no trace to any of 3 prompts"):
        sample_traces(*files, settings=settings, run=how(), threads=1, log_file=tmp_path / "log")
    assert not (tmp_path / "traces.parquet").exists()


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_has_the_samples_of_each_task_and_a_greedy_answer_where_it_is_wanted(checkpoint, tmp_path, greedy):
    suites = [problems(tmp_path, "in_domain"), problems(tmp_path, "out_of_domain", 2)]
    frame = read_table(suites[1], Prompts).with_columns(task=pl.lit("story"))
    write_table(frame, Prompts, suites[1])
    settings = PredictionsSettings(
        backend=CheckpointSettings(backend="transformers"),
        sampling=sampling(2),
        samples_by_task={"story": 5},
        greedy=greedy,
        seed=0,
    )
    job = {"settings": settings, "run": how(), "threads": 1, "log_file": tmp_path / "log"}
    evaluate_model(checkpoint / "manifest.json", suites, [], tmp_path / "predictions.parquet", **job)
    found = read_table(tmp_path / "predictions.parquet", Predictions)
    counts = {key: rows["item_id"].len() for key, rows in found.partition_by("task", "decoding", as_dict=True).items()}
    expected = {("arithmetic", "sampled"): 3 * 2, ("story", "sampled"): 2 * 5}
    assert counts == expected | ({("arithmetic", "greedy"): 3, ("story", "greedy"): 2} if greedy else {})
    assert set(found.filter(task="story")["suite"]) == {"out_of_domain"}


@pytest.mark.parametrize(
    ("generations", "marks", "said"),
    [
        ("7 it is", [True], r"row 1 of .*, column generations: expected a list of texts, found '7 it is'"),
        (["7 it is"], ["False"], r"row 1 of .*, column right: expected a list of marks \(true or false\), found .*False"),
        (["7 it is"], [0], r"column right: expected a list of marks"),
    ],
)
def test_a_data_set_whose_columns_are_no_lists_of_texts_and_marks_is_refused(generations, marks, said):
    columns = {"problem": "problem", "generations": "generations", "correct": ["right"], "complete": None}
    settings = DatasetSettings(repo="someone/set", **columns, think=("<think>", "</think>"))
    with pytest.raises(GenerateError, match=said):
        _whole({"generations": generations, "right": marks}, 0, settings)
