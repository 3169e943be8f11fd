"""One computation for all callers who miss the same key in this process at the same time.

A flight is found by the token of the lease that its callers hold. An invalidation ends the lease,
so a caller that misses after it holds another token and never joins a computation that began
before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

_REMEMBERED: Final = 4096


class SingleFlight:
    """A computation that other threads and event loops may wait for."""

    __slots__ = ("_lock", "_wakers", "alone", "done", "outcome", "owned", "token", "waits_for")

    def __init__(self, token: bytes) -> None:
        self.token = token
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], object]] = []
        self.done = False
        #: A caller in this process placed the lease, so no other process computes under it.
        self.owned = False
        #: There is no value to hand over: each waiting caller runs the function itself.
        self.alone = False
        #: A value that was not stored, encoded, so that each waiting caller gets a copy.
        self.outcome: bytes | None = None
        #: The flights that its computation waits for.
        self.waits_for: list[SingleFlight] = []

    @property
    def awaited(self) -> bool:
        """Whether any caller waits for the computation."""
        return bool(self._wakers)

    def wake_all(self) -> None:
        """Wake all waiting callers."""
        with self._lock:
            self.done = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def wait(self, seconds: float) -> bool:
        """Block until the flight is finished or the time is over; return whether it is finished."""
        finished = threading.Event()
        return self._call_when_done(finished.set) or finished.wait(seconds)

    async def await_(self, seconds: float) -> bool:
        """See ``wait()``."""
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def resolve() -> None:
            if not finished.done():
                finished.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(resolve)
            except RuntimeError:
                return  # The loop was closed, and its waiters with it.

        if self._call_when_done(wake):
            return True
        done, _pending = await asyncio.wait([finished], timeout=seconds)
        return bool(done)

    def _call_when_done(self, wake: Callable[[], object]) -> bool:
        with self._lock:
            if not self.done:
                self._wakers.append(wake)
            return self.done


# Reentrant: a finalizer may take the lock while this thread holds it.
_lock = threading.RLock()
_flights: dict[bytes, SingleFlight] = {}
# A caller may get the token of a lease and look it up only after the flight has finished.
_finished: OrderedDict[bytes, None] = OrderedDict()

#: The flights that the current context is computing, so that recursion does not wait for itself.
computing: ContextVar[tuple[SingleFlight, ...]] = ContextVar("computing", default=())


def acquire(token: bytes, *, owner: bool) -> tuple[SingleFlight | None, bool]:
    """Return the flight of a token and whether the caller is to lead it.

    Args:
        token: The token of the caller's lease.
        owner: Whether the caller placed the lease; the owner need not be the first to call this.

    Returns:
        None for a flight that is finished already.
    """
    with _lock:
        flight = _flights.get(token)
        leads = flight is None
        if flight is None:
            if token in _finished:
                return None, False
            flight = _flights[token] = SingleFlight(token)
        flight.owned = flight.owned or owner
        return flight, leads


@contextlib.contextmanager
def waiting(flight: SingleFlight) -> Iterator[bool]:
    """Note that the current context waits for a flight.

    Yields:
        Whether the wait can end: False for a flight that waits for the current context, directly
        or by way of others, such as two functions that call each other in two threads.
    """
    own = computing.get()
    for each in own:
        each.waits_for.append(flight)
    try:
        # Of all who close a circle, the last one to note it sees it.
        yield not _leads_to(flight, own)
    finally:
        for each in own:
            each.waits_for.remove(flight)


def _leads_to(flight: SingleFlight, others: tuple[SingleFlight, ...]) -> bool:
    seen: list[SingleFlight] = [flight]
    for each in seen:
        if each in others:
            return True
        seen += [other for other in list(each.waits_for) if other not in seen]
    return False


def finish(flight: SingleFlight) -> None:
    """End a flight that the caller leads."""
    with _lock:
        _flights.pop(flight.token, None)
        _finished[flight.token] = None
        if len(_finished) > _REMEMBERED:
            _finished.popitem(last=False)
    flight.wake_all()


def _after_fork() -> None:
    # The threads that lead the parent's flights do not exist in the child.
    global _lock
    _lock = threading.RLock()
    _flights.clear()


os.register_at_fork(after_in_child=_after_fork)
