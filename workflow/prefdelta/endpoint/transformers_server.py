"""A small OpenAI-compatible server of a checkpoint, for models that need no engine: what waits is answered in one batch."""

import argparse
import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import DynamicCache

from prefdelta.checkpoints.control import encode
from prefdelta.checkpoints.load import CheckpointError, load_model, load_tokenizer

ROWS = 512  # choices in a batch


@dataclass(frozen=True)
class Asked:
    """One choice that a request asks for; ``luck`` decides its tokens, whatever else is in the batch."""

    ids: tuple[int, ...]
    temperature: float
    max_tokens: int
    luck: random.Random


class Completer:
    """A checkpoint that completes conversations."""

    def __init__(self, checkpoint: Path | str) -> None:
        self.tokenizer = load_tokenizer(checkpoint, padding_side="left")
        self.model = load_model(checkpoint, torch.float32).eval()

    def asked(self, body: dict[str, Any]) -> list[Asked]:
        """The choices of a chat completion's body. Raises KeyError, TypeError, ValueError, CheckpointError for others."""
        ids = encode(self.tokenizer, body["messages"])
        room = self.model.config.max_position_embeddings - len(ids)
        if room < 1:
            # In words by which clients tell it from a request that is wrong.
            raise ValueError(f"the conversation of {len(ids)} tokens exceeds the model's context length of {len(ids) + room}")
        longest = min(int(body.get("max_tokens") or room), room)
        return [
            # As of other servers, a choice's luck is that of the next seed's first choice.
            Asked(tuple(ids), float(body.get("temperature", 1)), longest, random.Random((body.get("seed") or 0) + index))
            for index in range(body.get("n") or 1)
        ]

    def complete(self, choices: list[Asked]) -> list[tuple[str, str, int]]:
        """(text, finish reason, number of tokens) of each choice. Those of one conversation share its forward pass."""
        with torch.inference_mode():
            return [self._choice(ids) for ids in self._tokens(choices)]

    def _tokens(self, choices: list[Asked]) -> list[list[int]]:
        prompts = list(dict.fromkeys(choice.ids for choice in choices))
        batch = self.tokenizer.pad({"input_ids": [list(ids) for ids in prompts]}, return_tensors="pt")
        places = torch.tensor([prompts.index(choice.ids) for choice in choices])
        cache, mask = DynamicCache(config=self.model.config), batch["attention_mask"]
        logits = self._forward(batch["input_ids"], mask, cache)[places]
        mask = mask[places]
        cache.reorder_cache(places)
        cold = torch.tensor([choice.temperature == 0 for choice in choices])
        temperatures = torch.tensor([choice.temperature or 1.0 for choice in choices])[:, None]
        made: list[list[int]] = [[] for _ in choices]
        going = set(range(len(choices)))
        while True:
            luck = torch.tensor([choice.luck.random() for choice in choices], dtype=torch.float64)[:, None]
            reached = (logits.double() / temperatures).softmax(-1).cumsum(-1)
            drawn = (reached < luck * reached[:, -1:]).sum(-1)
            tokens = torch.where(cold, logits.argmax(-1), drawn)
            for row in sorted(going):
                made[row].append(int(tokens[row]))
                if made[row][-1] == self.tokenizer.eos_token_id or len(made[row]) == choices[row].max_tokens:
                    going.remove(row)
            if not going:
                return made
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._forward(tokens[:, None], mask, cache)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = found.logits[:, -1].float()
        return logits

    def _choice(self, ids: list[int]) -> tuple[str, str, int]:
        ended = ids[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(ids[:-1] if ended else ids, clean_up_tokenization_spaces=False)
        return text, "stop" if ended else "length", len(ids)


def application(completer: Completer, model: str) -> Starlette:
    """The ASGI application: chat completions with ``n``, ``seed``, ``temperature``, ``max_tokens``; models; a health check."""
    waiting: asyncio.Queue[tuple[list[Asked], asyncio.Future[list[tuple[str, str, int]]]]] = asyncio.Queue()

    async def work() -> None:
        while True:
            batch = [await waiting.get()]
            while not waiting.empty() and sum(len(choices) for choices, _ in batch) < ROWS:
                batch.append(waiting.get_nowait())
            together = [choice for choices, _ in batch for choice in choices]
            try:
                made = iter(await asyncio.to_thread(completer.complete, together))
            except Exception as error:
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            for choices, answer in batch:
                answer.set_result([next(made) for _ in choices])

    @asynccontextmanager
    async def working(_: Starlette) -> Any:
        worker = asyncio.create_task(work())
        yield
        worker.cancel()

    async def complete(request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        try:
            asked = completer.asked(body)
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, status_code=400)
        answer: asyncio.Future[list[tuple[str, str, int]]] = asyncio.get_running_loop().create_future()
        await waiting.put((asked, answer))
        made = await answer
        choices = [
            {"index": index, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
            for index, (text, reason, _) in enumerate(made)
        ]
        written = sum(n_tokens for _, _, n_tokens in made)
        usage = {"prompt_tokens": len(asked[0].ids), "completion_tokens": written, "total_tokens": len(asked[0].ids) + written}
        return JSONResponse(
            {"id": "transformers", "object": "chat.completion", "created": 0, "model": model, "choices": choices, "usage": usage}
        )

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": ""}]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ],
        lifespan=working,
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--checkpoint", required=True, help="folder")
    arguments.add_argument("--model", required=True, help="its name in requests")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    uvicorn.run(application(Completer(given.checkpoint), given.model), host="127.0.0.1", port=given.port, log_level="warning")
