"""Carries operations to Redis from event loops.

A connection belongs to the event loop it was made in. Each loop has one of its own, which all its
tasks share. It is closed when the loop shuts its async generators down, as ``asyncio.run`` and
``async_to_sync`` do before they close a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from redis import connection as sync_connection
from redis.asyncio import connection as async_connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import SentinelConnectionPool as SyncSentinelConnectionPool

from cache_layer.backends.operations.base import Operation, Read, Reply, Single
from cache_layer.backends.redis import cluster, internals
from cache_layer.backends.redis.errors import raise_outage
from cache_layer.backends.redis.multiplexer import CommandQueue
from cache_layer.backends.redis.pool import Callbacks, called_back
from cache_layer.backends.redis.transport import (
    Transport,
    checked,
    merge,
    otherwise,
    refused,
    to_repeat,
)
from cache_layer.breaker import Breaker

T = TypeVar("T")

#: Number of pieces into which the wait for a connection is divided.
_PIECES: Final = 10

Connect = Callable[[], Awaitable[internals.Connection]]
Handshake = Callable[[internals.Connection], Awaitable[None]]

#: Options of a synchronous connection that an asynchronous one creates itself.
_OWN: Final = frozenset(
    {
        "connection_pool",
        "event_dispatcher",
        "himport_registry",
        "maint_notifications_config",
        "maint_notifications_pool_handler",
        "orig_host_address",
        "orig_socket_connect_timeout",
        "orig_socket_timeout",
        "oss_cluster_maint_notifications_handler",
        "parser_class",
        "redis_connect_func",
        "retry",
    }
)


class _LoopEntry:
    """The queue of one event loop. Without one, a thread uses the synchronous client."""

    __slots__ = ("callbacks", "guard", "queue")

    def __init__(self, queue: CommandQueue | None, callbacks: Callbacks) -> None:
        self.queue = queue
        #: What redis-py makes of replies, by the name of the command.
        self.callbacks = callbacks
        self.guard: AsyncGenerator[None] | None = None


class AsyncTransport:
    """The connections of all event loops to the Redis of one store, in one process."""

    def __init__(self, transport: Transport, breaker: Breaker) -> None:
        self._transport = transport
        self._breaker = breaker
        self._loops: dict[asyncio.AbstractEventLoop, _LoopEntry] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, _LoopEntry]] = []

    async def run(self, operation: Operation[T]) -> T:
        """See ``Transport.run``."""
        try:
            entry = self._loops.get(asyncio.get_running_loop()) or await self._open()
            queue = entry.queue
            if queue is None:
                return await asyncio.to_thread(self._transport.run, operation)
            if isinstance(operation, Single):
                single: Single[T] = operation
                command = single.command()
                reply = await queue.send(command)
                while isinstance(reply, Exception):
                    again = otherwise(command, reply)
                    if again is None:
                        return refused(single, reply)
                    command, reply = again, await queue.send(again)
                callback = entry.callbacks.get(command[0])
                return single.parse(reply if callback is None else callback(reply))
            return await self._run_steps(entry, queue, operation)
        except Exception as error:
            raise_outage(error)
            raise

    def sent(self, operation: Operation[T]) -> asyncio.Future[Reply] | None:
        """Send a read of one command; return the future of its reply, for ``received()``.

        None if the read needs ``run()``, which costs another coroutine.
        """
        if operation.writes or not isinstance(operation, Read):
            return None
        entry = self._loops.get(asyncio.get_running_loop())
        return (
            None if entry is None or entry.queue is None else entry.queue.send(operation.command())
        )

    def received(self, operation: Operation[T], reply: object) -> T:
        """Return the result of a read that was ``sent()``; raise as ``run()`` does."""
        read = cast("Read[T]", operation)
        # Redis-py leaves the replies to GET and MGET as they are.
        if not isinstance(reply, Exception):
            return read.parse(reply)
        try:
            return refused(read, reply)
        except Exception as error:
            raise_outage(error)
            raise

    def after_fork(self) -> None:
        """Forget the parent's connections in a forked child.

        They are kept from being collected, since that would take their sockets off the selector
        that the parent still uses.
        """
        self._inherited.append(self._loops)
        self._loops = {}

    async def _open(self) -> _LoopEntry:
        loop = asyncio.get_running_loop()
        for closed in [other for other in list(self._loops) if other.is_closed()]:
            entry = self._loops.pop(closed, None)
            if entry is not None and entry.queue is not None:
                entry.queue.abandon()
        transport = self._transport
        client = transport.client.get_client(write=True)
        connect = _connector(client, transport.server.ahandshake, transport.budget)
        queue = CommandQueue(connect, transport.timeout, self._breaker) if connect else None
        entry = _LoopEntry(queue, dict(client.response_callbacks))
        self._loops[loop] = entry
        entry.guard = self._close_with_loop(loop, entry)
        await anext(entry.guard)
        return entry

    async def _close_with_loop(
        self, loop: asyncio.AbstractEventLoop, entry: _LoopEntry
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            if entry.queue is not None:
                await entry.queue.close()

    async def _run_steps(
        self, entry: _LoopEntry, queue: CommandQueue, operation: Operation[T]
    ) -> T:
        # Time in which the event loop is busy counts as well, and is not Redis's fault.
        deadline = math.inf if operation.long else self._transport.deadline(2)
        steps = operation.steps()
        try:
            commands = next(steps)
            while True:
                replies = await queue.send_all(commands)
                while again := to_repeat(commands, replies):
                    repeated = await queue.send_all(list(again.values()))
                    merge(again, repeated, commands, replies)
                replies = called_back(entry.callbacks, commands, replies)
                commands = steps.send(checked(operation, replies))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result


def _connector(client: object, handshake: Handshake, patience: float | None) -> Connect | None:
    """Return a function that makes connections like those of a synchronous client.

    Args:
        client: The synchronous client.
        handshake: Sets up each new connection.
        patience: Seconds that connecting may take in all; None for ever.

    Returns:
        None when ``redis.asyncio`` has no such connection (a class of the project's own).
    """
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SyncSentinelConnectionPool):
        return _through_sentinel(pool, handshake, patience) if _is_known() else None
    connection_class = _async_class(getattr(pool, "connection_class", None))
    if pool is None or connection_class is None or not _is_known():
        return None
    options = _options(pool.connection_kwargs, connection_class)

    async def connect() -> internals.Connection:
        connection = connection_class(redis_connect_func=handshake, **options)
        return await _connected(connection, patience)

    return connect


def _is_known() -> bool:
    return internals.are_known(async_connection.Connection(), internals.ASYNC)


async def _connected(
    connection: internals.Connection, patience: float | None
) -> internals.Connection:
    # Redis-py's limits would count the time in which this loop was busy.
    connection.socket_connect_timeout = connection.socket_timeout = None
    try:
        await _within(connection.connect(), patience)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _async_class(connection_class: Any) -> Any:
    classes = {
        sync_connection.Connection: async_connection.Connection,
        sync_connection.SSLConnection: async_connection.SSLConnection,
        sync_connection.UnixDomainSocketConnection: async_connection.UnixDomainSocketConnection,
        cluster.SlotConnection: cluster.AwaitedSlotConnection,
        cluster.SecureSlotConnection: cluster.SecureAwaitedSlotConnection,
    }
    return classes.get(connection_class)


async def _within(connecting: Awaitable[None], patience: float | None) -> None:
    """Wait for a connection, in pieces: one in which the loop was busy counts as any other.

    Raises:
        RedisTimeoutError: Connecting took longer.
    """
    task = asyncio.ensure_future(connecting)
    try:
        for _piece in range(_PIECES):
            pause = None if patience is None else patience / _PIECES
            done, _ = await asyncio.wait([task], timeout=pause)
            if done:
                return task.result()
        raise RedisTimeoutError("Timeout connecting to server")
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


def _through_sentinel(pool: Any, handshake: Handshake, patience: float | None) -> Connect:
    manager = pool.sentinel_manager
    addresses = [
        (kwargs["host"], kwargs["port"])
        for kwargs in (s.connection_pool.connection_kwargs for s in manager.sentinels)
    ]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses,
        sentinel_kwargs=_options(manager.sentinel_kwargs, async_connection.Connection),
    )
    found = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        pool.service_name,
        sentinel,
        ssl=issubclass(pool.connection_class, sync_connection.SSLConnection),
        is_master=pool.is_master,
        redis_connect_func=handshake,
        **_options(pool.connection_kwargs, async_connection.SSLConnection),
    )

    async def connect() -> internals.Connection:
        try:
            connection: object = found.make_connection()  # type: ignore[no-untyped-call]
            return await _connected(connection, patience)
        finally:
            for each in sentinel.sentinels:
                await each.aclose()

    return connect


def _options(options: dict[str, object], connection_class: type) -> dict[str, Any]:
    """Return those options that the asynchronous connection knows as well."""
    known = {
        name
        for cls in connection_class.__mro__[:-1]
        for name in inspect.signature(vars(cls).get("__init__", cls)).parameters
    }
    kept = {name: value for name, value in options.items() if name in known - _OWN}
    return {**kept, "retry": Retry(NoBackoff(), 0)}
