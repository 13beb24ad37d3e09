"""A connection to the endpoint that a configuration names: a provider's address, or a server that the job starts."""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefdelta.endpoint.refusals import Terms
from prefdelta.endpoint.serving import EndpointError, Served, Server, serving
from prefdelta.run.by_name import load
from prefdelta.run.processes import free_port
from prefdelta.study.endpoints import AskedEndpoint, ServedEndpoint, UrlEndpoint


@dataclass
class Connection:
    """How to reach an endpoint. ``identity`` is what determines its answers besides the request: no port, no key.

    ``omit`` are keys that its requests do without. ``terms``: what was found out about it.
    """

    base_url: str
    key: str = field(repr=False)
    identity: dict[str, Any]
    server: subprocess.Popen[bytes] | None = None
    log_file: Path | str = ""
    omit: frozenset[str] = frozenset()
    terms: Terms = field(init=False)

    def __post_init__(self) -> None:
        self.terms = Terms(self.base_url, self.omit)

    def check(self) -> None:
        """Raises EndpointError where the server that this job has started is no longer there."""
        if self.server and self.server.poll() is not None:
            raise EndpointError(f"the server ended with exit code {self.server.returncode} during the work: see {self.log_file}")


@contextlib.contextmanager
def connected(endpoint: AskedEndpoint, served: Served, *, threads: int, log_file: Path | str) -> Iterator[Connection]:
    """A connection to ``endpoint``; a server that it names runs for as long as the block, with its output in ``log_file``.

    Each kind of server is a module ``serve_{kind}`` with a function ``server``. Raises EndpointError.
    """
    if isinstance(endpoint, UrlEndpoint):
        base_url = endpoint.base_url.rstrip("/")
        key = os.environ.get(endpoint.api_key_env, "").strip()
        if not key.isprintable() or not key.isascii() or not key:
            raise EndpointError(f"the endpoint {base_url} needs its key in ${endpoint.api_key_env}: one line, letters of ASCII")
        yield Connection(base_url, key, {"kind": "url", "base_url": base_url}, omit=frozenset(endpoint.omit))
        return
    if isinstance(endpoint, ServedEndpoint) and served.checkpoint is None:
        raise EndpointError(f"a server of {served.model} needs the folder of a checkpoint")
    port, key = free_port(), secrets.token_hex(16)  # the key is for those who share this machine and its loopback
    server: Server = load("prefdelta.endpoint", f"serve_{endpoint.kind}").server(endpoint, served, port, key, threads)
    address = f"http://127.0.0.1:{port}"
    with serving(server.command, f"{address}/health", log_file, server.patience, server.environment) as process:
        yield Connection(f"{address}/v1", key, server.identity, process, log_file)
