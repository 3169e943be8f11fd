"""Chooses who answers: the near cache, Redis, or memory while Redis cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from cache_layer.backends.encoding import Codec
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near.cache import NearCache, NearJournal
from cache_layer.backends.near.decoded import DecodedValues
from cache_layer.backends.near.operations import NearOperation, near_operation
from cache_layer.backends.operations.base import (
    Awaited,
    Detour,
    Operation,
    OperationContext,
)
from cache_layer.backends.outage import CacheUnavailableError
from cache_layer.backends.recovery import Circuit, Recovery, Replay
from cache_layer.backends.redis.errors import CircuitOpenError, RedisUnavailableError
from cache_layer.exceptions import CommandRefusedError
from cache_layer.journal import Entries

if TYPE_CHECKING:
    # These imports need the extra ``redis``; a store without a LOCATION does not.
    from cache_layer.backends.near.tracking import Tracking
    from cache_layer.backends.redis.async_transport import AsyncTransport
    from cache_layer.backends.redis.transport import Transport

T = TypeVar("T")

#: Largest number of key makers whose decoded values are kept; a project may have one a tenant.
_MAX_KEY_MAKERS: Final = 500
#: Seconds between two looks whether the circuit still drains.
_PAUSE: Final = 0.01


class Store:
    """Answers the operations of every alias with the same LOCATION and OPTIONS in this process.

    Args:
        codec: Encodes and decodes the values.
        memory: The memory side.
        circuit: The circuit breaker; always open without a LOCATION.
        transport: Carries operations to Redis for threads; None without a LOCATION.
        async_transport: The same for event loops.
        near: The near cache, or None.
        tracking: Listens to changes for the near cache, or None.
        announce: Called with the result of ``describe()`` when Redis fails or is back.
    """

    def __init__(
        self,
        codec: Codec,
        memory: MemoryStore,
        circuit: Circuit,
        *,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        near: NearCache | None = None,
        tracking: Tracking | None = None,
        announce: Callable[[dict[str, object]], None] = lambda description: None,
    ) -> None:
        self.codec = codec
        self.memory = memory
        self.circuit = circuit
        self.breaker = circuit.breaker
        self.transport = transport
        self.near = near
        #: Whether every alias has the key prefix that its settings give it. False once a backend
        #: was given another, such as that of a request's tenant.
        self.single_prefix = True
        self.closed = False
        self._async_transport = async_transport
        self._tracking = tracking
        self._announce = announce
        self._context = OperationContext("", codec, None)
        self._recovery: Recovery | None = None
        self._near_journal = NearJournal(near) if near is not None else None
        self._decoded: dict[Hashable, DecodedValues] = {}

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in the near cache, Redis or memory; return its result."""
        near = self.near
        if near is None or not (operation.writes or operation.context.near):
            return self._run(operation)
        if operation.context.near and (twin := self._near_twin(near, operation)) is not None:
            if (found := twin.found()) is not None:
                return found[0]
            operation = twin
        if not operation.writes:
            return self._run(operation)
        self._forget(near, operation)
        try:
            return self._run(operation)
        finally:
            self._forget(near, operation)

    def arun(self, operation: Operation[T]) -> Awaited[T]:
        """See ``run()``."""
        near = self.near
        if near is None or not (operation.writes or operation.context.near):
            return self._arun(operation)
        return self._arun_near(near, operation)

    def near_enabled(self, namespace: str, asked: bool | None = None) -> bool:
        """Return whether reads under a namespace use the near cache.

        ``asked`` is the choice of the reader; None leaves it to the alias's options.
        """
        if self.near is None:
            return False
        names = self.near.options.namespaces
        return (names is None or namespace in names) if asked is None else asked

    def decoded_values(
        self, context: OperationContext, key_maker: Hashable = None
    ) -> DecodedValues | None:
        """Return decoded values of the near cache by the caller's names; None if it is not used.

        Callers with the same ``key_maker``, which turns names into keys, share the values. Without
        one, the caller gets values of its own.
        """
        if self.near is None or not context.near:
            return None
        decoded = DecodedValues(self.near, self.codec.decode)
        if key_maker is None:
            return decoded
        if len(self._decoded) >= _MAX_KEY_MAKERS:
            self._decoded.clear()
        return self._decoded.setdefault(key_maker, decoded)

    def forget_decoded(self) -> None:
        """Drop all decoded values, because names may stand for other keys now."""
        if self.near is not None:
            self.near.drop_all()

    def allow_other_prefixes(self) -> None:
        """Note that backends of one alias may have different prefixes from now on."""
        if self.single_prefix:
            self.single_prefix = False
            self.forget_decoded()

    def describe(self) -> dict[str, object]:
        """Return the state of the store.

        ``state`` is ``"redis"`` or ``"memory"``, ``since`` is an aware datetime, ``reason`` is
        empty while Redis answers. ``refused`` names the optional features that Redis refuses, if
        any. ``near`` describes the content of the near cache, if it was used.
        """
        breaker, near = self.breaker, self.near
        description: dict[str, object] = {
            "state": "redis" if breaker.closed else "memory",
            "since": dt.datetime.fromtimestamp(breaker.since, dt.UTC),
            "reason": breaker.reason,
        }
        if self.circuit.refused:
            description["refused"] = dict(self.circuit.refused)
        if near is None or self._tracking is None:
            return description
        if near.options.namespaces == frozenset() and not self._tracking.is_used:
            # It exists for functions that ask for it, and no function has.
            return description
        held = {"on": near.on, "entries": len(near), "bytes": near.bytes}
        return {**description, "near": held}

    def refused(self) -> dict[str, str]:
        """Ask Redis what it refuses; return its replies by the names in ``refusals.FEATURES``.

        Raises:
            RedisUnavailableError: Redis cannot be used.
        """
        if self.transport is not None:
            self.transport.probe()
        return dict(self.circuit.refused)

    def close(self) -> None:
        """Close the synchronous connections and end the threads.

        The next instance of an alias begins with an empty store of its own.
        """
        self.closed = True
        if self._tracking is not None:
            self._tracking.stop()
        with self.circuit.lock:
            if self._recovery is not None:
                self._recovery.stop()
        if self.transport is not None:
            self.transport.close()

    def after_fork(self) -> None:
        """Reset in a forked child, whose connections, threads and held locks are the parent's."""
        self.memory.after_fork()
        self._recovery = None
        if self.transport is not None:
            self.circuit.after_fork(self.memory.lock)
            self.transport.after_fork()
        if self._async_transport is not None:
            self._async_transport.after_fork()
        self.circuit.lock = self.memory.lock
        if self._tracking is not None:
            self._tracking.after_fork()

    def _run(self, operation: Operation[T]) -> T:
        breaker = self.breaker
        transport = self.transport
        reason = ""
        while True:
            if transport is not None and breaker.closed:
                try:
                    result = transport.run(operation)
                except Detour as detour:
                    operation = detour.operation
                    continue
                except RedisUnavailableError as failure:
                    reason = self._failed(operation, failure)
                else:
                    if breaker.failed:
                        self._succeeded()
                    return result
            if operation.lists_keys and breaker.draining:
                # Its scan would slow down that of the recovery, which all calls wait for.
                time.sleep(_PAUSE)
                continue
            answer = self._in_memory(operation, reason)
            if answer is not None:
                result, entries = answer
                if entries is not None and transport is not None:
                    with self._replaying(entries):
                        transport.run(Replay(self._context, entries))
                return result

    async def _arun(self, operation: Operation[T]) -> T:
        breaker = self.breaker
        transport = self._async_transport
        reason = ""
        while True:
            if transport is not None and breaker.closed:
                try:
                    sent = transport.sent(operation)
                    if sent is None:
                        result = await transport.run(operation)
                    else:
                        result = transport.received(operation, await sent)
                except Detour as detour:
                    operation = detour.operation
                    continue
                except RedisUnavailableError as failure:
                    reason = self._failed(operation, failure)
                else:
                    if breaker.failed:
                        self._succeeded()
                    return result
            if operation.lists_keys and breaker.draining:
                await asyncio.sleep(_PAUSE)
                continue
            answer = self._in_memory(operation, reason)
            if answer is not None:
                result, entries = answer
                if entries is not None and transport is not None:
                    with self._replaying(entries):
                        await transport.run(Replay(self._context, entries))
                return result

    async def _arun_near(self, near: NearCache, operation: Operation[T]) -> T:
        if operation.context.near and (twin := self._near_twin(near, operation)) is not None:
            if (found := twin.found()) is not None:
                return found[0]
            operation = twin
        if not operation.writes:
            return await self._arun(operation)
        self._forget(near, operation)
        try:
            return await self._arun(operation)
        finally:
            self._forget(near, operation)

    def _near_twin(self, near: NearCache, operation: Operation[T]) -> NearOperation[T] | None:
        """Return the operation that uses the near cache; None if that cannot answer it."""
        keyspace = operation.context.keyspace
        if keyspace is None or self._tracking is None or not self._tracking.covers(keyspace):
            return None
        return near_operation(near, operation) if near.on else None

    def _forget(self, near: NearCache, operation: Operation[T]) -> None:
        if near.on and self._near_journal is not None:
            operation.remember(self._near_journal)
            near.drop(operation.overwritten())

    def _in_memory(self, operation: Operation[T], reason: str) -> tuple[T, Entries | None] | None:
        """Return the result and the entries that the caller has to replay; None to ask Redis.

        ``reason`` says why Redis did not answer the operation, if it was asked.

        Raises:
            CacheUnavailableError: ``ON_OUTAGE`` of the alias is "raise" for this key.
        """
        breaker = self.breaker
        journal = self.circuit.journal
        with self.circuit.lock:
            if self.transport is None:
                return operation.in_memory(self.memory), None
            strict = operation.context.raises_on_outage
            if breaker.closed and strict and not reason:
                # Redis answers again by now.
                return None
            if breaker.closed and not strict:
                # One failure of a read is not an outage yet: memory is empty, so it is a miss.
                return None if operation.writes else (operation.in_memory(self.memory), None)
            if self._recovery is not None:
                self._recovery.wanted_at = time.monotonic()
                if self._recovery.over:
                    self._recover()
            if strict:
                raise CacheUnavailableError(
                    f"Redis cannot be used now ({breaker.reason or reason}), and ON_OUTAGE is "
                    '"raise" for this key, so memory does not answer for it. Let the request fail '
                    "and be repeated, or catch cache_layer.backends.CacheUnavailableError and do "
                    "without."
                )
            if operation.lists_keys and not self.circuit.lists_keys:
                # Redis could not be brought up to date, and would never be read again.
                raise CommandRefusedError(
                    f"Redis refuses SCAN ({self.circuit.refused['SCAN']}), so keys cannot be found "
                    "by pattern. Allow it to the user of this cache, or do without."
                )
            if breaker.draining:
                # What others gave back is the recovery's: a call replays no more than its own.
                journal = self.circuit.new_journal()
            operation.remember(journal)
            result = operation.in_memory(self.memory)
            return result, journal.take() if breaker.draining and journal else None

    def _failed(self, operation: Operation[T], failure: RedisUnavailableError) -> str:
        """Tell the circuit of a failure; return its reason, none if Redis was not asked."""
        if isinstance(failure, CircuitOpenError):
            return ""
        with self.circuit.lock:
            if operation.writes and not operation.context.raises_on_outage:
                # Redis may have executed the command, or may still do so.
                operation.remember(self.circuit.journal)
            decisive = failure.decisive or operation.writes
            opened = self.breaker.failure(failure.reason, decisive=decisive)
        if opened:
            self._opened()
        return failure.reason

    def _opened(self) -> None:
        if self.near is not None:
            self.near.turn_off()
        try:
            self._announce(self.describe())
        finally:
            self._recover()

    def _recover(self) -> None:
        """Begin to look for the end of an outage."""
        with self.circuit.lock:
            if self.transport is None or self.closed or self.breaker.closed:
                return
            if self._recovery is not None and not self._recovery.over:
                return
            self._recovery = Recovery(
                self.circuit, self.transport, self.memory, self._context, self._recovered
            )
            # The interpreter may be about to end.
            with contextlib.suppress(RuntimeError):
                self._recovery.start()

    def _recovered(self) -> None:
        self._announce(self.describe())

    @contextlib.contextmanager
    def _replaying(self, entries: Entries) -> Iterator[None]:
        """Remember entries again that a writer could not replay."""
        try:
            yield
        except (RedisUnavailableError, CommandRefusedError) as failure:
            if self.circuit.give_back(entries, str(failure)):
                self._opened()
        except BaseException:
            if self.circuit.give_back(entries):
                self._opened()
            raise

    def _succeeded(self) -> None:
        with self.circuit.lock:
            self.breaker.success()
