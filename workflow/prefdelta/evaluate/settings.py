"""Settings of the stage that measures how far a training has moved a policy."""

from typing import Literal

from prefdelta.study.models import Chat
from prefdelta.study.strict import Strict


class ShiftSettings(Strict):
    """Of `measure_shift`. ``temperature``: of the evaluation; ``max_length``: of training, and so of held-out traces."""

    temperature: float
    max_length: int
    chat: Chat
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
