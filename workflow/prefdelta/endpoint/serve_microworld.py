"""Endpoints of kind `microworld`: the oracle's server."""

import sys

from prefdelta.endpoint.serving import Served, Server
from prefdelta.run.provenance import code_digest
from prefdelta.study.endpoints import MicroworldEndpoint

PROGRAM = "prefdelta.microworld.server"


def server(endpoint: MicroworldEndpoint, served: Served, port: int, key: str, threads: int) -> Server:
    """The oracle's server, whose answers its code determines."""
    flags = ["--noise", str(endpoint.noise), "--unparsable", str(endpoint.unparsable)]
    identity = {**endpoint.model_dump(), "code": code_digest(PROGRAM)}
    return Server(identity, [sys.executable, "-m", PROGRAM, "--port", str(port), *flags], patience=60)
