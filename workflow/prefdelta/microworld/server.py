"""A small OpenAI-compatible server whose model rates micro-world traces: the oracle behind a judge's noise."""

import argparse
import json
import random
import re
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from prefdelta.microworld.oracle import grade, grade_step
from prefdelta.microworld.problems import parse
from prefdelta.study.dimensions import LEVELS

_ASKED = re.compile(
    r"<problem (\w+)>\n(.*)\n</problem \1>\n<trace \1>\n(.*)\n</trace \1>(?:\n<step \1>\n(.*)\n</step \1>)?", re.DOTALL
)


def answer(rubric: str, message: str, noise: float, unparsable: float, rng: random.Random) -> str:
    """One answer to a judge's ``message``: JSON with a noisy, rounded level for each dimension that ``rubric`` names.

    Where a step stands behind the trace, the trace is what stands before it, and the step alone is rated. Each level is the
    oracle's score plus a normal error of standard deviation ``noise``. A share ``unparsable`` of the answers is cut short, as
    those of language models at times are. Raises ValueError for a message without problem and trace.
    """
    asked = _ASKED.fullmatch(message)
    if not asked:
        raise ValueError("the last message is no problem and trace between their fences")
    scores = grade(parse(asked[2]), asked[3]) if asked[4] is None else {"step_coherence": grade_step(asked[3], asked[4])}
    levels = {name: min(max(round(score + rng.gauss(0, noise)), LEVELS[0]), LEVELS[-1]) for name, score in scores.items()}
    text = json.dumps({name: level for name, level in levels.items() if name in rubric})
    return text[: rng.randrange(len(text))] if rng.random() < unparsable else text


def application(noise: float, unparsable: float) -> Starlette:
    """The ASGI application: chat completions with ``n`` and ``seed``, the list of models, and a health check."""

    async def complete(request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        try:
            rubric, message = (part["content"] for part in body["messages"])
            choices = [
                {
                    "index": index,
                    "finish_reason": "stop",
                    "message": {
                        "role": "assistant",
                        "content": answer(
                            rubric, message, noise, unparsable, random.Random(f"{body.get('seed')}/{index}/{message}")
                        ),
                    },
                }
                for index in range(body.get("n") or 1)
            ]
        except (KeyError, IndexError, ValueError) as error:
            return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, status_code=400)
        return JSONResponse(
            {"id": "microworld", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices}
        )

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": "oracle", "object": "model", "created": 0, "owned_by": ""}]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--noise", type=float, required=True, help="standard deviation of a level")
    arguments.add_argument("--unparsable", type=float, required=True, help="share of answers that are cut short")
    given = arguments.parse_args()
    uvicorn.run(application(given.noise, given.unparsable), host="127.0.0.1", port=given.port, log_level="warning")
