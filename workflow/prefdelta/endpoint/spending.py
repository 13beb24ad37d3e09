"""What answers cost: tokens and money of a model at an endpoint, counted over all that its store holds, and a cap on them."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator

from prefdelta.endpoint.answers import Body, tokens
from prefdelta.endpoint.serving import EndpointError
from prefdelta.study.run import RequestsRun

log = logging.getLogger(__name__)

_REQUEST, _RESPONSE, _USAGE = b', "request": ', b', "response": ', b', "usage": '
_WAIT = 0.05  # seconds until it is looked again whether what is under way cost less than it could


class Spending:
    """What the answers of one model, as they stand in the store of its endpoint, cost so far: by whatever job, study or judge.

    Where a server did not say how many tokens it counted, the most that they can be counts. Without prices nothing is counted.
    """

    def __init__(self, model: str, run: RequestsRun, where: str) -> None:
        """``where``: the place of ``run`` in the configuration."""
        self.model, self.prices, self.cap, self.where = model, run.prices, run.cap, where
        self.answers = self.tokens_in = self.tokens_out = 0
        self._mark = f'"model": {json.dumps(model)}'.encode()
        self._under_way: list[float] = []  # the most that each request can cost

    @property
    def spent(self) -> float:
        """In USD."""
        return self._price(self.tokens_in, self.tokens_out)

    def count(self, line: bytes) -> None:
        """Counts a ``line`` of the store, if its request was one to this model."""
        if not self.prices or self._mark not in line:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line without a checksum may be damaged
            # A response names a model, too, which may be another one; and so may a part of the request.
            if not line.startswith(b"{" + self._mark, line.index(_REQUEST) + len(_REQUEST)):
                between = line[line.index(_REQUEST) : line.index(_RESPONSE)]
                if self._mark not in between or json.loads(line)["request"]["model"] != self.model:
                    return
            # Quotation marks within texts are escaped, so what is looked for is no text.
            usage = json.loads(line[line.rindex(_USAGE) + len(_USAGE) : line.rindex(b', "seconds": ')])
            read, written = tokens({"usage": usage})
            if read is None or written is None:
                read, written = most_tokens(json.loads(line)["request"])
            self.answers, self.tokens_in, self.tokens_out = self.answers + 1, self.tokens_in + read, self.tokens_out + written

    @contextlib.asynccontextmanager
    async def reserved(self, request: Body) -> AsyncIterator[None]:
        """A block in which ``request`` is asked and its answer stored.

        It is entered once all that is under way, at the most that it can cost, stays below the cap with it. Raises EndpointError
        where nothing is under way and it does not.
        """
        if self.cap is None:
            yield
            return
        cost = self._most(request)
        while self.spent + sum(self._under_way) + cost > self.cap:
            if not self._under_way:
                raise self._reached(cost)
            await asyncio.sleep(_WAIT)
        self._under_way.append(cost)
        try:
            yield
        finally:
            self._under_way.remove(cost)

    def affordable(self, requests: Iterable[Body], submitted: Iterable[Body]) -> Iterator[Body]:
        """As many of ``requests``, from the first, as stay below the cap together with those that are ``submitted``.

        Raises EndpointError where not even the first one does, and nothing is submitted.
        """
        if self.cap is None:
            yield from requests
            return
        costs = [self._most(request) for request in submitted]
        for request in requests:
            costs.append(self._most(request))
            if self.spent + sum(costs) > self.cap:
                if len(costs) == 1:
                    raise self._reached(costs[0])
                log.info("no more requests for now: with them, %s.cap could be exceeded", self.where)
                return
            yield request

    def tell(self) -> None:
        """Says in the log what was spent."""
        if self.prices:
            log.info("%s%s", self._told(), "" if self.cap is None else f"; {self.where}.cap is {self.cap:g}")

    def _told(self) -> str:
        return (
            f"{self.spent:.4f} USD so far for {self.answers} answers of {self.model} here "
            f"({self.tokens_in} tokens read, {self.tokens_out} written)"
        )

    def _most(self, request: Body) -> float:
        return self._price(*most_tokens(request))

    def _price(self, read: int, written: int) -> float:
        return self.prices.of(read, written) if self.prices else 0.0

    def _reached(self, cost: float) -> EndpointError:
        return EndpointError(
            f"stopped before {self.where}.cap = {self.cap:g} USD is exceeded: {self._told()}, and the next request could cost "
            f"{cost:.4f}. Raise {self.where}.cap and run again: what was answered is kept, and not paid for again"
        )


def most_tokens(request: Body) -> tuple[int, int]:
    """The most tokens that a server can read and write for ``request``: a token is a byte at least."""
    read = len(json.dumps(request, ensure_ascii=False).encode(errors="surrogatepass"))
    return read, request.get("n", 1) * (request.get("max_tokens") or request.get("max_completion_tokens") or 0)
