"""Generation with vLLM's offline engine, in a process and, where need be, an environment of its own."""

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Literal, cast

from prefdelta.checkpoints.load import load_tokenizer
from prefdelta.generate.chat import decode, encode
from prefdelta.generate.completions import Completion, GenerateError, Request, check_room
from prefdelta.generate.settings import CheckpointSettings, GenerationRun
from prefdelta.run.processes import running
from prefdelta.run.vllm import environment, vllm_python

MEMORY = (
    ". Where memory is out: lower run.models.<its name>.max_model_len, give it more `gpus`, and raise gpu_memory_utilization "
    "where the model itself does not fit, or lower it where others use the GPU"
)
ENGINE = Path(__file__).with_name("vllm_engine.py")


def complete(
    requests: list[Request],
    *,
    settings: CheckpointSettings,
    run: GenerationRun,
    checkpoint: Path | None,
    seed: int,
    threads: int,
    log_file: Path,
) -> list[list[Completion]]:
    """`generate.complete` with vLLM: one load of the model, all requests in one queue.

    Both ``engine`` are further arguments of vllm.EngineArgs. The same requests, settings and seed give the same completions on
    the same hardware. The engine's output goes to ``log_file``. Raises GenerateError and CheckpointError.
    """
    python = vllm_python()
    tokenizer = load_tokenizer(checkpoint)
    arguments = {
        "enable_prefix_caching": True,
        **run.model.engine,
        "model": str(checkpoint),
        "seed": seed,
        "dtype": settings.dtype,
        "max_model_len": run.model.max_model_len,
        "tensor_parallel_size": max(1, run.model.gpus),
        "gpu_memory_utilization": run.model.gpu_memory_utilization,
        **settings.engine,
    }
    encoded = encode(tokenizer, [request.prompt for request in requests], settings)
    check_room(requests, encoded, run.model.max_model_len)
    asked = [
        {
            "prompt_id": request.prompt_id,
            "prompt_token_ids": ids,
            "sampling": {
                "n": request.sampling.samples if request.sampling.temperature > 0 else 1,  # vLLM draws a greedy answer once
                "temperature": request.sampling.temperature,
                "top_p": request.sampling.top_p,
                "top_k": request.sampling.top_k,
                "max_tokens": request.sampling.max_new_tokens,
            },
        }
        for request, ids in zip(requests, encoded, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="prefdelta-vllm-") as name:
        folder = Path(name)
        (folder / "requests.json").write_text(json.dumps({"arguments": arguments, "requests": asked}), encoding="utf-8")
        _run(python, folder, threads, log_file)
        results: list[list[Completion]] = [[] for _ in requests]
        with (folder / "answers.jsonl").open(encoding="utf-8") as answers:
            for answer in map(json.loads, answers):
                results[answer["index"]] = [
                    decode(tokenizer, made["token_ids"], _finish_reason(made["finish_reason"]), settings.think)
                    for made in answer["completions"]
                ]
    for request, several in zip(requests, results, strict=True):
        if request.sampling.temperature == 0:
            several *= request.sampling.samples
    return results


def _finish_reason(told: str) -> Literal["stop", "length"]:
    if told not in ("stop", "length"):
        raise GenerateError(f"vLLM ended a completion with '{told}', which is neither its end nor the token limit")
    return cast(Literal["stop", "length"], told)


def _run(python: Path, folder: Path, threads: int, log_file: Path) -> None:
    """Runs the engine on ``folder`` until it ends, or until this process does. Raises GenerateError where it fails."""
    # -P: without it the engine's folder would be on its path, with modules such as statistics.py before the standard library's.
    command = [str(python), "-P", str(ENGINE), str(folder)]
    # In one process the order of steps, and so what a seed draws, depends on nothing but the requests.
    variables = {**environment(threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if shutil.which("nvidia-smi") is None:
        # The engine does not compile models on a CPU, and compiling the sampler takes g++ and half a minute once, and made small
        # models three times slower.
        variables.setdefault("TORCHDYNAMO_DISABLE", "1")
    begin = log_file.stat().st_size if log_file.exists() else 0
    with running(command, log_file, variables) as process:
        code = process.wait()
    if code != 0:
        reason = _reason(folder, log_file, begin, code)
        advice = MEMORY if any(word in reason.lower() for word in ("memory", "alloc_failed")) else ""
        raise GenerateError(f"vLLM failed: {reason} (its whole output is in {log_file}){advice}")


def _reason(folder: Path, log_file: Path, begin: int, code: int) -> str:
    """The engine's own last error, or where it could not even tell one, the last line it wrote."""
    told = folder / "error.txt"
    if told.exists():
        return told.read_text(encoding="utf-8")
    with log_file.open("rb") as output:
        output.seek(begin)
        lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    killed = " (killed, perhaps for want of memory)" if code in (-signal.SIGKILL, 128 + signal.SIGKILL) else ""
    return f"exit code {code}{killed}" + (f", last line: {lines[-1]}" if lines else "")
