"""Settings of the stages that make or fetch checkpoints."""

from typing import Literal

from prefdelta.study.models import Author, World
from prefdelta.study.strict import Strict


class PretrainSettings(Strict):
    """Of `pretrain_model`. ``authors``: (weight, author); ``operations``: [fewest, most] of a problem."""

    family: Literal["qwen3", "llama"]
    hidden_size: int
    layers: int
    heads: int
    authors: list[tuple[float, Author]]
    world: World = World()
    domains: list[str]
    operations: tuple[int, int]
    writes: Literal["traces", "ratings"]
    steps: int
    batch_size: int
    learning_rate: float
    seed: int


class FetchSettings(Strict):
    """Of `fetch_model`: a hub id with its commit, or a local folder."""

    repo: str
    revision: str | None
    family: str
