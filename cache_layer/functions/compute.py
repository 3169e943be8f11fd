"""Computes the value after a miss: one caller computes and stores it, the others wait.

The algorithm is written once, as a generator that yields effects: cache operations, calls and
waits. ``drive`` executes the effects and blocks, ``adrive`` awaits them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from typing import Final, TypeVar

from cache_layer import metrics
from cache_layer.aliases import Function, Value
from cache_layer.backends import (
    Lease,
    Operation,
    ResilientCache,
    ResultKey,
    ResultOperationFactory,
    StaleValue,
    UnreadableValueError,
)
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.arguments import Args, Kwargs
from cache_layer.functions.singleflight import (
    SingleFlight,
    acquire,
    computing,
    finish,
    waiting,
)
from cache_layer.functions.spec import CachedFunctionSpec

_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1

T = TypeVar("T")

#: The result of a function and None, or None and its exception.
Outcome = tuple[Value, Exception | None]


class CachedCall:
    """One call of a cached function: the key of its result, and the way to compute the result."""

    __slots__ = ("args", "backend", "factory", "kwargs", "result", "spec")

    def __init__(
        self,
        spec: CachedFunctionSpec,
        backend: ResilientCache,
        factory: ResultOperationFactory,
        result: ResultKey,
        args: Args,
        kwargs: Kwargs,
    ) -> None:
        self.spec = spec
        self.backend = backend
        self.factory = factory
        self.result = result
        self.args = args
        self.kwargs = kwargs

    def compute(self) -> Compute:
        """Return the effect of calling the function."""
        return Compute(self.spec.function, self.args, self.kwargs)


class Compute:
    """Call the decorated function; the answer is its outcome."""

    def __init__(self, function: Function, args: Args, kwargs: Kwargs) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def do(self) -> Outcome:
        """Do it, blocking."""
        try:
            return self._function(*self._args, **self._kwargs), None
        except Exception as error:  # noqa: BLE001 - raised again once others know.
            return None, error

    async def ado(self) -> Outcome:
        """Do it, awaiting."""
        try:
            return await self._function(*self._args, **self._kwargs), None
        except Exception as error:  # noqa: BLE001 - raised again once others know.
            return None, error


class Wait:
    """Wait for the flight of another caller; the answer is whether it finished in time."""

    def __init__(self, flight: SingleFlight, seconds: float) -> None:
        self._flight = flight
        self._seconds = seconds

    def do(self) -> bool:
        """Do it, blocking."""
        return self._flight.wait(self._seconds)

    async def ado(self) -> bool:
        """Do it, awaiting."""
        return await self._flight.await_(self._seconds)


class Sleep:
    """Pause between two reads while another process computes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def do(self) -> None:
        """Do it, blocking."""
        time.sleep(self._seconds)

    async def ado(self) -> None:
        """Do it, awaiting."""
        await asyncio.sleep(self._seconds)


Effect = Operation[Value] | Compute | Wait | Sleep
Effects = Generator[Effect, Value, T]


class Miss:
    """One call that found no value: decides who computes it, and stores it."""

    def __init__(self, call: CachedCall) -> None:
        self._call = call
        self._spec = call.spec
        self._factory = call.factory
        self._result = call.result
        self._has_computed = False

    def steps(self, unreadable: bytes, lease: Lease | None = None) -> Effects[Outcome]:
        """Get the lease; compute the value, or wait for the holder of the lease.

        Args:
            unreadable: The bytes under the key, if they cannot be decoded.
            lease: The lease, if the caller has claimed it.
        """
        value, error = yield from self._steps(lease or (yield from self._claim(unreadable)))
        if not self._has_computed:
            self._spec.count_cost("saved", value)
        return value, error

    def _steps(self, lease: Value) -> Effects[Outcome]:
        for _attempt in range(_ATTEMPTS):
            if not isinstance(lease, Lease):
                return lease, None
            flight, leads = acquire(lease.token, owner=lease.owner)
            if flight is not None and leads:
                return (yield from self._lead(flight, lease))
            if flight is not None:
                with waiting(flight) as may_end:
                    if not may_end or not (yield Wait(flight, settings.LEASE_TTL)):
                        break
                if flight.outcome is not None:
                    with contextlib.suppress(UnreadableValueError):
                        return self._factory.context.codec.decode(flight.outcome), None
            lease = yield from self._look_again()
            if flight is not None and flight.alone:
                break
        if not isinstance(lease, Lease):
            return lease, None
        return (yield from self._compute(lease, None))

    def _claim(self, unreadable: bytes = b"") -> Effects[Value]:
        operation = self._factory.claim(self._result, unreadable)
        try:
            found = yield operation
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled before the reply arrived.
            if operation.claimed is not None:
                yield self._factory.release(self._result, operation.claimed)
            raise
        return found.value if isinstance(found, StaleValue) else found

    def _look_again(self) -> Effects[Value]:
        found = yield from self._claim()
        # A call is one miss however often it reads; the first read counted it.
        again = "misses" if isinstance(found, Lease) else "hits"
        metrics.record(self._spec.options.namespace, again, -1)
        return found

    def _lead(self, flight: SingleFlight, lease: Lease) -> Effects[Outcome]:
        before = computing.set((*computing.get(), flight))
        try:
            if self._spec.options.lock:
                found = yield from self._wait_for_other_process(flight, lease)
                if not isinstance(found, Lease):
                    return found, None
                lease = found
            return (yield from self._compute(lease, flight))
        finally:
            finish(flight)
            # A coroutine that nobody finishes is closed in another context.
            with contextlib.suppress(ValueError):
                computing.reset(before)

    def _wait_for_other_process(self, flight: SingleFlight, lease: Lease) -> Effects[Value]:
        """Return the value that another process stores, or the lease under which to compute."""
        deadline = time.monotonic() + settings.LEASE_TTL
        pause = _FIRST_PAUSE
        # Another token without a value: that computation failed or was overtaken by an
        # invalidation. So this caller computes now, and does not wait for the next computation.
        while lease.token == flight.token and not flight.owned and time.monotonic() < deadline:
            yield Sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
            found = yield from self._look_again()
            if not isinstance(found, Lease):
                return found
            lease = found
        return lease

    def _compute(self, lease: Lease, flight: SingleFlight | None) -> Effects[Outcome]:
        stored = False
        self._has_computed = True
        try:
            value, error = yield self._call.compute()
            if error is None:
                self._spec.count_cost("spent", value)
                stored = yield from self._store(value, lease)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled: the waiting callers start over, each with a new lease.
            yield from self._give_back(lease, flight)
            raise
        if not stored:
            if flight is not None and flight.awaited:
                flight.outcome = self._encoded(value) if error is None else None
                flight.alone = flight.outcome is None
            yield from self._give_back(lease, flight)
        return value, error

    def _store(self, value: object, lease: Lease) -> Effects[bool]:
        spec = self._spec
        if not self._factory.is_storing or (value is None and not spec.options.cache_none):
            return False
        try:
            operation = self._factory.fill(self._result, value, lease)
        except UnsupportedValueError as error:
            spec.warn_once("returned a value that cannot be stored", error)
            return False
        return bool((yield operation))

    def _encoded(self, value: object) -> bytes | None:
        try:
            return self._factory.context.codec.encode(self._result.key, value)
        except UnsupportedValueError:
            return None

    def _give_back(self, lease: Lease, flight: SingleFlight | None) -> Effects[None]:
        # A caller that computes beside the owner of the lease must not end that lease.
        if flight is not None or lease.owner:
            yield self._factory.release(self._result, lease)


def drive(steps: Effects[Outcome], backend: ResilientCache) -> Value:
    """Execute the effects, blocking; return the value, or raise the exception of the function."""
    run = backend.store.run
    try:
        effect = next(steps)
        while True:
            try:
                answer = run(effect) if isinstance(effect, Operation) else effect.do()
            except BaseException as error:  # noqa: BLE001 - the steps decide.
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stop:
        return _result(stop.value)


async def adrive(steps: Effects[Outcome], backend: ResilientCache) -> Value:
    """See ``drive()``."""
    run = backend.store.arun
    try:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Operation):
                    answer = await run(effect)
                else:
                    answer = await effect.ado()
            except BaseException as error:  # noqa: BLE001 - the steps decide.
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stop:
        return _result(stop.value)


def _result(outcome: Outcome) -> Value:
    value, error = outcome
    if error is None:
        return value
    try:
        raise error
    finally:
        # Its traceback holds this frame, which must not hold it in turn.
        del error
