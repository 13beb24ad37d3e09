"""Endpoints of kind `vllm`: vLLM's server."""

from prefdelta.endpoint.serving import Served, Server, weights
from prefdelta.run.vllm import environment, vllm_python
from prefdelta.study.endpoints import VllmEndpoint


def server(endpoint: VllmEndpoint, served: Served, port: int, key: str, threads: int) -> Server:
    """vLLM's server of a checkpoint. Its answers are determined by weights, dtype and the flags that are content.

    vLLM's version, the number of GPUs and other run settings change no more than rounding.
    """
    identity = {
        "kind": "vllm",
        "model": served.model,
        "checkpoint": weights(served),
        "dtype": served.dtype,
        "flags": endpoint.flags,
    }
    run = served.run
    command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(served.checkpoint)]
    command += ["--served-model-name", served.model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--tensor-parallel-size", str(max(1, run.gpus)), "--dtype", served.dtype]
    command += ["--generation-config", "vllm"]  # not the sampling settings that the model's makers ship
    if run.gpus:
        command += ["--gpu-memory-utilization", str(run.gpu_memory_utilization)]
    else:
        # On a CPU, vLLM 0.30 ends at a request with a seed whose prompt takes more than one step.
        command += ["--no-enable-chunked-prefill"]
    if run.max_model_len:
        command += ["--max-model-len", str(run.max_model_len)]
    variables = {**environment(threads), "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_API_KEY": key}
    return Server(identity, [*command, *endpoint.flags, *run.flags], run.patience, variables)
