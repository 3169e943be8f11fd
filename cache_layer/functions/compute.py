"""The way from a miss to a value: who computes it, who waits, and what is stored.

It is written once, as a generator that yields what is to be done; ``drive`` does it blocking,
``adrive`` awaiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any, Final

from cache_layer import metrics
from cache_layer.backends import Lease, ResilientCache
from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import Entry
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.results import StaleValue
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.singleflight import SingleFlight, acquire, computing, finish
from cache_layer.functions.spec import CachedFunctionSpec

_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1


class Run:
    """A cache operation."""

    def __init__(self, backend: ResilientCache, operation: Operation[Any]) -> None:
        self._backend = backend
        self._operation = operation

    def do(self) -> Any:
        """Do it."""
        return self._backend.run(self._operation)

    async def ado(self) -> Any:
        """See ``do()``."""
        return await self._backend.arun(self._operation)


class Call:
    """The decorated function; the outcome is a value and None, or None and what it raised."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def do(self) -> tuple[Any, Exception | None]:
        """Do it."""
        try:
            return self._function(*self._args, **self._kwargs), None
        except Exception as error:  # noqa: BLE001 - raised again once others know.
            return None, error

    async def ado(self) -> tuple[Any, Exception | None]:
        """See ``do()``."""
        try:
            return await self._function(*self._args, **self._kwargs), None
        except Exception as error:  # noqa: BLE001 - raised again once others know.
            return None, error


class Wait:
    """For somebody else's flight; the outcome is whether it landed in time."""

    def __init__(self, flight: SingleFlight, seconds: float) -> None:
        self._flight = flight
        self._seconds = seconds

    def do(self) -> bool:
        """Do it."""
        return self._flight.wait(self._seconds)

    async def ado(self) -> bool:
        """See ``do()``."""
        return await self._flight.await_(self._seconds)


class Sleep:
    """Between two looks at what another process does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def do(self) -> None:
        """Do it."""
        time.sleep(self._seconds)

    async def ado(self) -> None:
        """See ``do()``."""
        await asyncio.sleep(self._seconds)


Effect = Run | Call | Wait | Sleep
Outcome = tuple[Any, Exception | None]
Steps = Generator[Effect, Any, Outcome]


class Miss:
    """One call that found no value: finds out who computes it, and stores it."""

    def __init__(
        self,
        spec: CachedFunctionSpec,
        backend: ResilientCache,
        entry: Entry,
        args: Any,
        kwargs: Any,
    ) -> None:
        self._recipe = spec
        self._backend = backend
        self._results = spec.results(backend)
        self._entry = entry
        self._call = Call(spec.function, args, kwargs)

    def steps(self, unreadable: bytes) -> Steps:
        """Get the lease; compute, or wait for whoever does.

        ``unreadable``: the nonce of the value that was found and cannot be decoded.
        """
        lease = yield from self._claim(unreadable)
        for _attempt in range(_ATTEMPTS):
            if not isinstance(lease, Lease):
                return lease, None
            flight, leads = acquire(lease.token, owner=lease.owner)
            if flight is not None and leads:
                return (yield from self._lead(flight, lease))
            if flight is not None:
                if flight in computing.get() or not (yield Wait(flight, settings.LEASE_TTL)):
                    break
                if flight.outcome is not None:
                    with contextlib.suppress(UnreadableValueError):
                        return self._backend.context.codec.decode(flight.outcome), None
            lease = yield from self._look_again()
            if flight is not None and flight.alone:
                break
        if not isinstance(lease, Lease):
            return lease, None
        return (yield from self._compute(lease, None))

    def _claim(self, unreadable: bytes = b"") -> Generator[Effect, Any, Any]:
        operation = self._results.claim(self._entry, unreadable)
        try:
            found = yield Run(self._backend, operation)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled before the reply was there.
            if operation.claimed is not None:
                yield Run(self._backend, self._results.release(self._entry, operation.claimed))
            raise
        return found.value if isinstance(found, StaleValue) else found

    def _look_again(self) -> Generator[Effect, Any, Any]:
        found = yield from self._claim()
        # However often it looks, a call is one miss, which was counted at the first look.
        again = "misses" if isinstance(found, Lease) else "hits"
        metrics.record(self._recipe.options.namespace, again, -1)
        return found

    def _lead(self, flight: SingleFlight, lease: Lease) -> Steps:
        mark = computing.set((*computing.get(), flight))
        try:
            if self._recipe.options.lock:
                found = yield from self._wait_for_other_process(flight, lease)
                if not isinstance(found, Lease):
                    return found, None
                lease = found
            return (yield from self._compute(lease, flight))
        finally:
            finish(flight)
            # A coroutine that nobody finishes is closed in another context.
            with contextlib.suppress(ValueError):
                computing.reset(mark)

    def _wait_for_other_process(
        self, flight: SingleFlight, lease: Lease
    ) -> Generator[Effect, Any, Any]:
        """Return the value that another process stores, or the lease under which to compute."""
        deadline = time.monotonic() + settings.LEASE_TTL
        pause = _FIRST_PAUSE
        # Another token without a value: that computation failed or was overtaken by an
        # invalidation. Whoever waited computes now, instead of queueing up for the next one.
        while lease.token == flight.token and not flight.owned and time.monotonic() < deadline:
            yield Sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
            found = yield from self._look_again()
            if not isinstance(found, Lease):
                return found
            lease = found
        return lease

    def _compute(self, lease: Lease, flight: SingleFlight | None) -> Steps:
        kept = False
        try:
            value, error = yield self._call
            if error is None:
                kept = yield from self._store(value, lease)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled: whoever waits starts over, under a lease of its own.
            yield from self._give_back(lease, flight)
            raise
        if not kept:
            if flight is not None and flight.awaited:
                flight.outcome = self._encoded(value) if error is None else None
                flight.alone = flight.outcome is None
            yield from self._give_back(lease, flight)
        return value, error

    def _store(self, value: Any, lease: Lease) -> Generator[Effect, Any, bool]:
        spec = self._recipe
        if not self._results.keeps or (value is None and not spec.options.cache_none):
            return False
        try:
            operation = self._results.fill(self._entry, value, lease)
        except UnsupportedValueError as error:
            spec.warn_once("returned a value that cannot be stored", error)
            return False
        return bool((yield Run(self._backend, operation)))

    def _encoded(self, value: Any) -> bytes | None:
        try:
            return self._backend.context.codec.encode(self._entry.key, value)
        except UnsupportedValueError:
            return None

    def _give_back(self, lease: Lease, flight: SingleFlight | None) -> Generator[Effect, Any, None]:
        # Who runs alone beside the owner must not end the owner's lease.
        if flight is not None or lease.owner:
            yield Run(self._backend, self._results.release(self._entry, lease))


def drive(steps: Steps) -> Any:
    """Do the steps, blocking; return the value, or raise what the function raised."""
    try:
        effect = next(steps)
        while True:
            try:
                answer = effect.do()
            except BaseException as error:  # noqa: BLE001 - the steps decide.
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stop:
        return _result(stop.value)


async def adrive(steps: Steps) -> Any:
    """See ``drive()``."""
    try:
        effect = next(steps)
        while True:
            try:
                answer = await effect.ado()
            except BaseException as error:  # noqa: BLE001 - the steps decide.
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stop:
        return _result(stop.value)


def _result(outcome: Outcome) -> Any:
    value, error = outcome
    if error is None:
        return value
    try:
        raise error
    finally:
        # Its traceback holds this frame, which must not hold it in turn.
        del error
