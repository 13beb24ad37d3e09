"""The environment that has vLLM: its own, since vLLM pins what it needs tightly."""

import importlib.util
import os
import sys
from pathlib import Path

from prefdelta.run.errors import PrefdeltaError


class VllmError(PrefdeltaError):
    """vLLM is not installed anywhere where it is looked for."""


def vllm_python() -> Path:
    """The interpreter of the environment that has vLLM: this one, else ``.venv-vllm`` of ``make env-vllm``.

    The latter is looked for in the working directory and in the repository. Raises VllmError.
    """
    here = importlib.util.find_spec("vllm")
    if here is not None and here.origin is not None:  # without an origin it is any folder of that name
        return Path(sys.executable)
    for folder in (Path.cwd(), Path(__file__).parents[3]):
        python = folder / ".venv-vllm" / "bin" / "python"
        if python.exists():
            return python
    raise VllmError("vLLM is not installed: run `make env-vllm`, or use --software-deployment-method conda")


def environment(threads: int) -> dict[str, str]:
    """Environment variables for a process that runs vLLM, engine or server, on GPUs or on ``threads`` CPU cores."""
    # Only vLLM's build for the CPU reads these. Small models need little cache (GiB); whoever runs a large one on a CPU sets it.
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {**defaults, **os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
