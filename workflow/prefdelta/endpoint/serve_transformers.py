"""Endpoints of kind `transformers`: a small model, without an engine."""

import sys

from prefdelta.endpoint.serving import Served, Server, weights
from prefdelta.run.provenance import code_digest
from prefdelta.study.endpoints import TransformersEndpoint

PROGRAM = "prefdelta.endpoint.transformers_server"


def server(endpoint: TransformersEndpoint, served: Served, port: int, key: str, threads: int) -> Server:
    """A server of a checkpoint, whose answers its weights and our code determine."""
    command = [sys.executable, "-m", PROGRAM, "--checkpoint", str(served.checkpoint), "--model", served.model]
    identity = {"kind": "transformers", "model": served.model, "checkpoint": weights(served), "code": code_digest(PROGRAM)}
    return Server(identity, [*command, "--port", str(port), "--threads", str(threads)], patience=300)
