"""How likely the untuned policy is to write a trace: the closer to its own samples, the less off-policy the trace is."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from prefdelta.tables.io import read_table
from prefdelta.tables.stages import References


def logp_per_token(references: Sequence[Path], max_length: int) -> pl.DataFrame:
    """``trace_id`` and ``logp``: mean log-probability (nats) of a completion's tokens, as many as fit in ``max_length``.

    From stored `References`. It is what SimPO takes for a reward (arXiv 2405.14734, section 2.2). Null of a trace
    whose prompt alone is too long.
    """
    room = max_length - pl.col("n_prompt_tokens")
    tokens = pl.min_horizontal("n_tokens", room)
    per_token = pl.when(tokens > 0).then(pl.col("logp") / tokens)
    return pl.concat([read_table(file, References).select("trace_id", logp=per_token) for file in references])
