"""The micro-world study on every backend: with a vLLM server as judge, and its tables against those of transformers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from prefdelta.findings.capability import Capability
from prefdelta.findings.experiment import Results
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.judge.ratings import rate_traces
from prefdelta.judge.settings import RatingsRun, RatingsSettings
from prefdelta.microworld.authors import write
from prefdelta.microworld.problems import final_answer, random_problem, render
from prefdelta.study.endpoints import VllmEndpoint
from prefdelta.study.judges import Judge
from prefdelta.study.models import Author
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.tables.io import read_result_csv, read_table, write_table
from prefdelta.tables.stages import Ratings, Traces

REPOSITORY = Path(__file__).parents[2]


def study():
    """The smoke study with a generator for each backend, and one model that writes for all of them but one."""
    content = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text(encoding="utf-8"))
    marks = ["", ";"]
    content["models"] = {name: content["models"][name] for name in ("student", "policy", "qwen-s", "qwen-l")}
    served = {"kind": "vllm", "model": "qwen-l", "flags": ["--enforce-eager"]}
    stored = {"repo": "stored.parquet", "tokenizer": "qwen-l", "complete": None, "correct": [], "think": marks}
    content["generators"] = {
        "qwen-s": {"model": "qwen-s", "backend": "transformers"},
        "local": {"model": "qwen-l", "backend": "transformers"},
        "engine": {"model": "qwen-l", "backend": "vllm", "seed": 1},
        "served": {"backend": "openai", "model": "qwen-l", "endpoint": served, "think": marks, "seed": 2},
        "stored": {"backend": "dataset", **stored},
    }
    content["judges"] = {"oracle": content["judges"]["oracle"]}
    del content["reference_judge"]
    content["methods"] = {"dpo": content["methods"]["dpo"] | {"learning_rate": 2e-4}}
    del content["run"], content["sweeps"], content["validation"]
    delta = content["experiments"]["generator_delta"]
    delta |= {"chosen": ["local", "engine", "served", "stored"], "rejected": ["qwen-s"], "versus": [], "seeds": 1}
    content["experiments"] = {"generator_delta": delta}
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the repository with the study, its models and the traces that make up the data set of `stored`."""
    folder = tmp_path_factory.mktemp("study")
    kept = shutil.ignore_patterns(".*", "results", "store", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, folder, ignore=kept, dirs_exist_ok=True)
    (folder / ".venv-vllm").symlink_to(REPOSITORY / ".venv-vllm")
    (folder / "config/study.yaml").write_text(yaml.safe_dump(study(), sort_keys=False), encoding="utf-8")
    snakemake(folder, "results/smoke/traces/local.parquet")
    traces = read_table(folder / "results/smoke/traces/local.parquet", Traces)
    rows = traces.group_by("prompt", maintain_order=True).agg("text").rename({"prompt": "problem", "text": "generations"})
    rows.write_parquet(folder / "stored.parquet")
    return folder


def snakemake(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder / "workflow")}
    environment.pop("PREFDELTA_STORE", None)
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/study.yaml", "--cores", "2", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]


def capability(folder):
    table = read_result_csv(folder / "results/smoke/tables/capability.csv", Capability)
    return table.filter(pl.col("task").is_null()).sort("model", "suite", "decoding")


def test_the_study_runs_with_traces_from_all_four_backends(folder):
    snakemake(
        folder, *(f"results/smoke/tables/{name}.csv" for name in ("generator_delta", "capability", "generator_level_delta"))
    )
    table = read_result_csv(folder / "results/smoke/tables/generator_delta.csv", Results)
    assert set(table["chosen"]) == {"local", "engine", "served", "stored"}
    traces = {
        name: read_table(folder / f"results/smoke/traces/{name}.parquet", Traces)
        for name in ("local", "engine", "served", "stored")
    }
    assert {len(one) for one in traces.values()} == {480}
    for one in traces.values():
        assert one["finish_reason"].is_in(["stop", "length"]).all()
        stopped = one.filter((pl.col("finish_reason") == "stop") & pl.col("answer").is_not_null())
        assert (stopped["reasoning"] + ";" + stopped["response"] == stopped["text"]).all()
    assert traces["stored"]["text"].equals(traces["local"]["text"])
    assert traces["stored"]["correct"].equals(traces["local"]["correct"])
    # Samples of one model by three backends: equally good, up to chance.
    deltas = read_result_csv(folder / "results/smoke/tables/generator_level_delta.csv", GeneratorDeltas)
    for name in ("engine", "served"):
        (row,) = deltas.filter(chosen=name, rejected="local", quantity="accuracy").iter_rows(named=True)
        half = (row["ci_high"] - row["ci_low"]) / 2
        assert abs(row["estimate"]) < 2 * half, row


def test_evaluations_by_vllm_give_the_same_table_within_intervals(folder):
    snakemake(folder, "results/smoke/tables/capability.csv")
    ours = capability(folder)
    snakemake(folder, "results/smoke/tables/capability.csv", "--config", "backend=vllm")
    theirs = capability(folder)
    assert ours.select("model", "suite", "decoding", "n_items").equals(theirs.select("model", "suite", "decoding", "n_items"))
    for one, other in zip(ours.iter_rows(named=True), theirs.iter_rows(named=True), strict=True):
        if one["decoding"] == "greedy":
            assert abs(one["estimate"] - other["estimate"]) <= 5, (one, other)
        else:
            # Samples differ, items are the same: intervals of both must meet.
            assert one["ci_low"] <= other["ci_high"] and other["ci_low"] <= one["ci_high"], (one, other)


def test_a_vllm_server_judges(random_checkpoint, tmp_path):
    import random

    rng = random.Random(0)
    problems = [random_problem("arithmetic", 2, rng) for _ in range(4)]
    texts = [write(problem, Author(), rng) for problem in problems]
    texts[0] = texts[0] * (6000 // len(texts[0]))  # longer than the engine would by itself read in one step
    traces = pl.DataFrame(
        {
            "trace_id": [f"t{place}" for place in range(4)],
            "prompt_id": [f"p{place}" for place in range(4)],
            "generator": ["g"] * 4,
            "sample": [0] * 4,
            "prompt": [render(problem, rng) for problem in problems],
            "text": texts,
            "reasoning": [""] * 4,
            "response": texts,
            "answer": [final_answer(text) for text in texts],
            "correct": [True] * 4,
            "n_tokens": [9] * 4,
            "finish_reason": ["stop"] * 4,
        }
    )
    write_table(traces, Traces, tmp_path / "traces.parquet")
    compact = '{"backend": "xgrammar", "disable_any_whitespace": true}'
    endpoint = VllmEndpoint(kind="vllm", model="judge", flags=["--structured-outputs-config", compact])
    judge = Judge(model="judge", endpoint=endpoint, choices_per_request=5)
    model = ModelRun(gpus=0, max_model_len=8192, flags=["--enforce-eager"], patience=300)
    rate_traces(
        tmp_path / "traces.parquet",
        random_checkpoint / "manifest.json",
        None,
        tmp_path / "ratings.parquet",
        settings=RatingsSettings(judge="j", settings=judge, dtype="float32"),
        run=RatingsRun(requests=RequestsRun(concurrency=4, retries=2, timeout=120), model=model),
        threads=1,
        log_file=tmp_path / "log",
    )
    ratings = read_table(tmp_path / "ratings.parquet", Ratings)
    assert len(ratings) == 4 * 5 * 5
    assert ratings["rating"].null_count() == 0
    assert ratings["rating"].n_unique() > 1
