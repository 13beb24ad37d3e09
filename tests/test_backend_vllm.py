"""The vLLM backend where vLLM is missing or fails at once; on real engines it is tested in tests/vllm."""

import json
from pathlib import Path

import build
import pytest

from prefdelta.checkpoints.load import CheckpointError
from prefdelta.generate import backend_vllm
from prefdelta.generate.completions import GenerateError, Request
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.microworld.pretrain import make_tokenizer
from prefdelta.run import vllm
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling

REQUESTS = [Request("p", "3+4", Sampling(samples=1, temperature=0, max_new_tokens=9))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    build.checkpoint(folder, make_tokenizer())
    return folder


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Makes a script the interpreter of ``.venv-vllm``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)

    def make(script):
        python = tmp_path / ".venv-vllm" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        return python

    return make


def run(checkpoint, log, **model):
    settings = CheckpointSettings(backend="vllm")
    how = GenerationRun(batch_size=1, model=ModelRun(**model), requests=RequestsRun())
    return backend_vllm.complete(REQUESTS, settings=settings, run=how, checkpoint=checkpoint, seed=0, threads=1, log_file=log)


def test_without_vllm_the_error_says_how_to_get_it(interpreter, monkeypatch, tmp_path):
    monkeypatch.setattr(vllm, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(vllm.VllmError, match="make env-vllm"):
        vllm.vllm_python()


def test_vllm_is_taken_from_the_environment_beside_the_workflow(interpreter):
    python = interpreter("true")
    assert vllm.vllm_python() == python


def test_a_folder_named_vllm_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "vllm").mkdir()
    python = tmp_path / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(vllm.sys.modules, "vllm", raising=False)
    assert vllm.vllm_python() == python


@pytest.mark.parametrize(
    "script, told",
    [
        ("echo loading; echo 'ImportError: libcudart.so.13' >&2; exit 3", "exit code 3, last line: ImportError: libcudart.so.13"),
        ("kill -9 $$", r"\(killed, perhaps for want of memory\)"),
    ],
)
def test_an_engine_that_dies_is_an_error_with_its_last_words(script, told, interpreter, checkpoint, tmp_path):
    interpreter(script)
    (tmp_path / "log").write_text("what the job said before\n")
    with pytest.raises(GenerateError, match=told) as error:
        run(checkpoint, tmp_path / "log")
    assert str(tmp_path / "log") in str(error.value)
    assert "before" not in str(error.value)


@pytest.mark.parametrize(
    ("told", "is_memory"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", True),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("ValueError: Unknown quantization method: fp3", False),
    ],
)
def test_where_memory_is_out_the_settings_to_change_are_named(told, is_memory, interpreter, checkpoint, tmp_path):
    interpreter(f"cat > \"$3/error.txt\" <<'END'\n{told}\nEND\nexit 1")
    with pytest.raises(GenerateError) as error:
        run(checkpoint, tmp_path / "log")
    assert told in str(error.value)
    names = ("run.models.<its name>.max_model_len", "`gpus`", "gpu_memory_utilization where")
    assert [name in str(error.value) for name in names] == [is_memory] * 3


def test_a_checkpoint_without_a_tokenizer_is_an_error_that_names_it(interpreter, tmp_path):
    interpreter("true")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=f"tokenizer of {tmp_path}/empty"):
        run(tmp_path / "empty", tmp_path / "log")


def test_a_context_that_could_cut_a_completion_is_an_error_before_the_engine_starts(interpreter, checkpoint, tmp_path):
    interpreter("echo started; exit 3")
    needed = len("<user>") // 6 + len("3+4") + len("<assistant>") // 11 + 9
    with pytest.raises(GenerateError, match=rf"1 of 1 .* max_model_len = {needed - 1} .* p with {needed}: raise run\.models"):
        run(checkpoint, tmp_path / "log", max_model_len=needed - 1)
    for limit in (needed, None):
        with pytest.raises(GenerateError, match="last line: started"):
            run(checkpoint, tmp_path / "log", max_model_len=limit)


def test_arguments_of_content_and_of_run_reach_the_engine(interpreter, checkpoint, tmp_path):
    interpreter(f'cp "$3/requests.json" {tmp_path}; exit 3')
    settings = CheckpointSettings(backend="vllm", engine={"quantization": "fp8"})
    model = ModelRun(gpus=2, max_model_len=99, engine={"max_num_seqs": 4})
    how = GenerationRun(batch_size=1, model=model, requests=RequestsRun())
    with pytest.raises(GenerateError):
        backend_vllm.complete(
            REQUESTS, settings=settings, run=how, checkpoint=checkpoint, seed=3, threads=1, log_file=tmp_path / "log"
        )
    arguments = json.loads((tmp_path / "requests.json").read_text())["arguments"]
    expected = {"seed": 3, "dtype": "float32", "max_model_len": 99, "tensor_parallel_size": 2, "gpu_memory_utilization": 0.9}
    assert arguments.items() >= (expected | {"quantization": "fp8", "max_num_seqs": 4}).items()


def test_the_environment_sends_no_usage_and_leaves_what_the_user_has_set(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    variables = vllm.environment(3)
    assert (variables["VLLM_CPU_KVCACHE_SPACE"], variables["OMP_NUM_THREADS"]) == ("40", "3")
    assert variables["VLLM_NO_USAGE_STATS"] == variables["DO_NOT_TRACK"] == "1"


def test_the_engine_needs_nothing_of_this_package():
    assert "prefdelta" not in "".join(
        line for line in Path(backend_vllm.ENGINE).read_text().splitlines() if line.startswith(("import", "from"))
    )
