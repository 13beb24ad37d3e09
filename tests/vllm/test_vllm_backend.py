"""The vLLM backend on real checkpoints: the same contract, the same greedy answers and the same distribution as transformers."""

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from prefdelta.generate import backend_transformers, backend_vllm
from prefdelta.generate.completions import GenerateError, Request
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.microworld.problems import final_answer, random_problem, render
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling

RNG = random.Random(0)
PROBLEMS = [random_problem("arithmetic", RNG.randint(1, 3), RNG) for _ in range(100)]
PROMPTS = [render(problem, RNG) for problem in PROBLEMS]
LIMIT = 80
KINDS = {  # name -> how it is sampled
    "greedy": Sampling(samples=1, temperature=0, max_new_tokens=LIMIT),
    "sampled": Sampling(samples=4, temperature=1, max_new_tokens=LIMIT),
    "short": Sampling(samples=1, temperature=0, max_new_tokens=5),
    "greedy thrice": Sampling(samples=3, temperature=0, max_new_tokens=LIMIT),
    "top_k 1": Sampling(samples=1, temperature=1, top_k=1, max_new_tokens=LIMIT),
    "top_p 0": Sampling(samples=1, temperature=1, top_p=1e-6, max_new_tokens=LIMIT),
}
MIXED = [
    *(Request(f"p{i}", prompt, KINDS[kind]) for kind in ("greedy", "sampled") for i, prompt in enumerate(PROMPTS)),
    *(Request(f"p{i}", PROMPTS[i], sampling) for sampling in list(KINDS.values())[2:] for i in range(10)),
]


def by_kind(completions):
    """The completions of `MIXED` by the name of their sampling."""
    return {
        kind: [several for request, several in zip(MIXED, completions, strict=True) if request.sampling == sampling]
        for kind, sampling in KINDS.items()
    }


def run(backend, requests, checkpoint, folder, seed=0, room=None, **settings):
    job = {"settings": CheckpointSettings(backend=backend.__name__.rpartition("_")[2], **settings), "threads": 1}
    job["run"] = GenerationRun(batch_size=256, model=ModelRun(gpus=0, max_model_len=room), requests=RequestsRun())
    return backend.complete(requests, **job, checkpoint=checkpoint, seed=seed, log_file=folder / "log")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def raw(checkpoint, logs):
    return run(backend_vllm, MIXED, checkpoint, logs)


@pytest.fixture(scope="module")
def ours(raw):
    return by_kind(raw)


@pytest.fixture(scope="module")
def theirs(checkpoint, logs):
    return by_kind(run(backend_transformers, MIXED, checkpoint, logs))


def test_greedy_completions_are_those_of_transformers_token_for_token(ours, theirs):
    same = sum(mine == other for mine, other in zip(ours["greedy"], theirs["greedy"], strict=True))
    assert same >= 0.95 * len(PROMPTS)
    assert len({several[0].text for several in ours["greedy"]}) > 50


def test_samples_are_right_as_often_as_those_of_transformers(ours, theirs):
    def shares(several_by_prompt):
        """Of each problem, the share of right answers."""
        return [
            sum(final_answer(completion.text) == problem.answer for completion in several) / len(several)
            for problem, several in zip(PROBLEMS, several_by_prompt, strict=True)
        ]

    pairs = list(zip(shares(ours["sampled"]), shares(theirs["sampled"]), strict=True))
    differences = [mine - other for mine, other in pairs]
    mean = sum(differences) / len(differences)
    error = math.sqrt(sum((difference - mean) ** 2 for difference in differences)) / len(differences)
    assert abs(mean) < 4 * error
    assert error < 0.05
    assert 0.1 < sum(mine for mine, _ in pairs) / len(pairs) < 0.95  # else a difference could hardly show


def test_every_request_has_its_samples_and_they_differ(ours):
    for kind, sampling in KINDS.items():
        assert all(len(several) == sampling.samples for several in ours[kind])
    assert sum(len({completion.text for completion in several}) > 1 for several in ours["sampled"]) > 50
    assert all(len(set(several)) == 1 for several in ours["greedy thrice"])


def test_a_completion_stops_with_its_end_token_or_at_its_own_limit(ours, checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    reasons = set()
    for kind, sampling in KINDS.items():
        for completion in (completion for several in ours[kind] for completion in several):
            ended = completion.finish_reason == "stop"
            assert "<" not in completion.text
            if sampling.temperature == 0:  # a text that was drawn can have another, shorter spelling
                assert completion.n_tokens == len(tokenizer(completion.text)["input_ids"]) + ended
            assert completion.n_tokens <= sampling.max_new_tokens
            assert ended or completion.n_tokens == sampling.max_new_tokens
            reasons.add((kind, completion.finish_reason))
    assert {("greedy", "stop"), ("short", "length")} <= reasons
    for (whole,), (cut,) in zip(ours["greedy"], ours["short"], strict=False):
        assert whole.text.startswith(cut.text)


@pytest.mark.parametrize("kind", ["top_k 1", "top_p 0"])
def test_sampling_from_the_most_likely_token_alone_is_greedy(kind, ours):
    assert ours[kind] == ours["greedy"][:10]


def test_the_last_statement_is_the_response(ours):
    for (completion,) in ours["greedy"]:
        assert completion.reasoning + ";" + completion.response == completion.text
        assert completion.response.startswith("#")


def test_the_same_seed_gives_the_same_completions_and_another_seed_others(checkpoint, raw, logs):
    assert run(backend_vllm, MIXED, checkpoint, logs) == raw
    other = by_kind(run(backend_vllm, MIXED, checkpoint, logs, seed=1))
    first = by_kind(raw)
    assert other["greedy"] == first["greedy"]
    assert sum(mine != again for mine, again in zip(other["sampled"], first["sampled"], strict=True)) > 50


def test_the_log_tells_how_far_it_is(raw, logs):
    total = sum(request.sampling.samples for request in MIXED if request.sampling.temperature) + sum(
        not request.sampling.temperature for request in MIXED
    )
    text = (logs / "log").read_text()
    assert f"sampled {total} of {total} completions" in text
    assert "s left" in text


def test_thinking_between_special_tokens_is_told_from_the_response(random_checkpoint, logs):
    sampling = Sampling(samples=4, temperature=1, max_new_tokens=300)
    requests = [Request(f"p{i}", f"question {i}", sampling) for i in range(30)]
    changes = {"think": ("<think>", "</think>"), "system": "Think.", "room": 400}
    made = [each for several in run(backend_vllm, requests, random_checkpoint, logs, **changes) for each in several]
    finished = [completion for completion in made if completion.reasoning and completion.response]
    cut_off = [completion for completion in made if completion.reasoning and not completion.response]
    assert len(finished) > 5
    assert cut_off
    for completion in finished:
        assert completion.text == f"<think>\n{completion.reasoning}\n</think>\n\n{completion.response}"
    for completion in cut_off:
        assert "</think>" not in completion.text or completion.finish_reason == "stop"
    # 'Z' ends an answer as <|end|> does: the checkpoint says so in its generation_config.
    assert any(completion.finish_reason == "stop" for completion in made)
    assert not any("Z" in completion.text or "<|end|>" in completion.text for completion in made)


def test_a_prompt_that_does_not_fit_is_named_before_the_model_is_loaded(checkpoint, tmp_path):
    long = [Request("fits", PROMPTS[0], KINDS["greedy"]), Request("too-long", PROMPTS[0] * 99, KINDS["greedy"])]
    with pytest.raises(GenerateError, match=r"^vLLM failed: UnusableError: 1 prompts .* context of 256 .* too-long") as error:
        run(backend_vllm, long, checkpoint, tmp_path)
    assert str(tmp_path / "log") in str(error.value)
    assert "Starting to load model" not in (tmp_path / "log").read_text()


def test_answers_that_the_models_context_may_cut_are_told(checkpoint, tmp_path):
    long = [Request("p", PROMPTS[0], Sampling(samples=1, temperature=1, max_new_tokens=256))]
    run(backend_vllm, long, checkpoint, tmp_path)
    assert "1 of 1 answers end at the model's context of 256 tokens if not before" in (tmp_path / "log").read_text()


def test_a_checkpoint_without_weights_is_an_error_with_its_reason(checkpoint, tmp_path):
    broken = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(GenerateError, match=r"^vLLM failed: \w+: .*weights"):
        run(backend_vllm, MIXED[:1], broken, tmp_path)


def test_an_argument_that_vllm_does_not_know_is_an_error_that_names_it(checkpoint, tmp_path):
    with pytest.raises(GenerateError, match="no_such_argument"):
        run(backend_vllm, MIXED[:1], checkpoint, tmp_path, engine={"no_such_argument": 1})


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_engine_ends_with_a_job_that_is_killed(how, checkpoint, tmp_path):
    code = f"""
from pathlib import Path
from prefdelta.generate.backend_vllm import complete
from prefdelta.generate.completions import Request
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling
requests = [Request("p", "3+4", Sampling(samples=1, temperature=0, max_new_tokens=9))]
folder, log_file = Path({str(checkpoint)!r}), Path({str(tmp_path / "log")!r})
settings, run = CheckpointSettings(backend="vllm"), GenerationRun(batch_size=1, model=ModelRun(), requests=RequestsRun())
complete(requests, settings=settings, run=run, checkpoint=folder, seed=0, threads=1, log_file=log_file)
"""
    script = tmp_path / "job.py"
    script.write_text(code)
    job = subprocess.Popen([sys.executable, str(script)], cwd=Path.cwd(), env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        eventually(lambda: engines(tmp_path), 300)
        job.send_signal(how)
        job.wait(timeout=30)
        eventually(lambda: not engines(tmp_path), 60)
    finally:
        job.kill()
        for pid in engines(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def engines(folder):
    """The processes that run the engine on files in ``folder``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().decode(errors="replace").split("\0")
            if str(backend_vllm.ENGINE) in words and any(word.startswith(str(folder)) for word in words):
                found.append(int(file.parent.name))
    return found


def eventually(holds, patience):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
