"""How many requests an endpoint takes at once, found out by asking."""

import asyncio
import math
import time

_FIRST = 8  # requests under way at the start
_LESS = 0.7  # of the requests under way go on after an overload
_PATIENCE = 50  # round trips before one more is tried where that was too many


class Limit:
    """How many requests are under way: as many as the server takes, at most ``most``.

    The limit doubles each round trip up to the first overload. Then each overload lowers it to `_LESS`, and each round trip
    raises it by one (additive increase, multiplicative decrease); but the number that was too many last is tried again only after
    `_PATIENCE` round trips, so that the limit stays just below it and refusals are few.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.value = float(min(most, _FIRST))
        self.too_many = math.inf
        self._lowered = 0.0  # when
        self._under_way = 0
        self._places = int(self.value)  # free or taken
        self._free = asyncio.Semaphore(self._places)

    async def enter(self) -> int:
        """Waits until one more request may go out. Returns how many are under way with it."""
        await self._free.acquire()
        self._under_way += 1
        return self._under_way

    def leave(self) -> None:
        self._under_way -= 1
        if self._places > int(self.value):
            self._places -= 1
        else:
            self._free.release()

    def answered(self) -> None:
        """To be called at each answer, before `leave`."""
        if not self._free.locked():
            return  # it is not this limit that keeps requests from going out
        if self.too_many == math.inf:
            step = 1.0
        elif self.too_many - 1 <= self.value < self.too_many:
            step = 1 / (_PATIENCE * self.value)
        else:
            step = 1 / self.value
        self.value = min(self.most, self.value + step)
        while self._places < int(self.value):
            self._places += 1
            self._free.release()

    def overloaded(self, started: float, under_way: int) -> None:
        """To be called for a request that was too much. One from before the limit was last lowered (when it went out,
        ``under_way`` were more than are allowed now, or it was earlier) tells nothing new.
        """
        if started > self._lowered and under_way <= self.value:
            self.too_many = int(self.value)
            self.value, self._lowered = max(1.0, self.value * _LESS), time.monotonic()
