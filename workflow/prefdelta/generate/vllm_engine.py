"""vLLM's offline engine as a program: token ids in, token ids out. `backend_vllm` starts it and says what the files hold.

It imports nothing of this package, which may be missing from the environment that has vLLM.
"""

import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from vllm import LLM, EngineArgs, SamplingParams
from vllm.platforms import current_platform

log = logging.getLogger("vllm_engine")


class UnusableError(Exception):
    """The requests do not fit the engine."""


def run(folder: Path) -> None:
    """Answers ``requests.json`` of ``folder`` in ``answers.jsonl``, a line for each request as soon as it is finished."""
    given = json.loads((folder / "requests.json").read_text(encoding="utf-8"))
    arguments, requests = given["arguments"], given["requests"]
    if current_platform.is_cpu():
        arguments = {"enforce_eager": True, **arguments}  # compiling takes minutes, and wins little on a CPU
    _check_lengths(requests, EngineArgs(**arguments).create_model_config().max_model_len)
    llm = LLM(**arguments)
    llm.enqueue(
        [{"prompt_token_ids": request["prompt_token_ids"]} for request in requests],
        # Texts are made from token ids by `chat.decode`, as for other backends.
        [SamplingParams(**request["sampling"], detokenize=False) for request in requests],
        use_tqdm=False,
    )
    total, done, tokens = sum(request["sampling"]["n"] for request in requests), 0, 0
    started = told = time.monotonic()
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as answers:
        while llm.llm_engine.has_unfinished_requests():
            for output in llm.llm_engine.step():
                if not output.finished:
                    continue
                made = [{"token_ids": list(one.token_ids), "finish_reason": one.finish_reason} for one in output.outputs]
                answers.write(json.dumps({"index": int(output.request_id), "completions": made}) + "\n")
                done += len(made)
                tokens += sum(len(one["token_ids"]) for one in made)
            now = time.monotonic()
            if done and (now - told > 10 or done == total):
                told, left = now, (now - started) / done * (total - done)
                rate = tokens / (now - started)
                log.info("sampled %d of %d completions, %.0f tokens/s, about %.0f s left", done, total, rate, left)


def _check_lengths(requests: list[dict[str, Any]], limit: int) -> None:
    lengths = {request["prompt_id"]: len(request["prompt_token_ids"]) for request in requests}
    longest = max(lengths, key=lambda prompt_id: lengths[prompt_id])
    if lengths[longest] >= limit:
        too_long = sum(length >= limit for length in lengths.values())
        raise UnusableError(
            f"{too_long} prompts leave no room for an answer in the model's context of {limit} tokens; the longest is {longest} "
            f"with {lengths[longest]}: drop long prompts"
        )
    cramped = sum(lengths[r["prompt_id"]] + r["sampling"]["max_tokens"] > limit for r in requests)
    if cramped:
        log.warning("%d of %d answers end at the model's context of %d tokens if not before", cramped, len(requests), limit)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        run(Path(sys.argv[1]))
    except Exception as error:
        traceback.print_exc()
        # Beside the log, where vLLM's own last words would follow.
        Path(sys.argv[1], "error.txt").write_text(f"{type(error).__name__}: {' '.join(str(error).split())}", encoding="utf-8")
        sys.exit(1)
