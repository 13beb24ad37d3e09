"""Out of memory: libraries say so in many ways, and none says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prefdelta.run.errors import PrefdeltaError

SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")  # of RuntimeErrors of torch, CPU or GPU


class OutOfMemoryError(PrefdeltaError):
    """A model, or what is done with it, does not fit; the message names the settings to lower."""


@contextmanager
def fitting(advice: str) -> Iterator[None]:
    """Raises OutOfMemoryError with ``advice`` in place of what libraries raise where memory is out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(words in str(error) for words in SAID):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise OutOfMemoryError(f"out of memory: {advice} ({reason})") from None
