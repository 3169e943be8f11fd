"""What one event loop says to Redis: a queue, and a connection that is laid when it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from cache_layer.backends.operations.base import Command
from cache_layer.backends.redis.errors import CircuitOpenError, as_unavailable
from cache_layer.backends.redis.multiplexer import Batch, MultiplexedConnection, Waiter, refuse
from cache_layer.backends.redis.resp import pack
from cache_layer.breaker import Breaker


class CommandQueue:
    """Belongs to one event loop.

    ``connect`` returns a ``redis.asyncio`` connection that is set up. Futures that this gives out
    are done with replies, of which any may be the exception that Redis answered with, or fail with
    ``RedisUnavailableError``. One that is cancelled disturbs no other.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], timeout: float | None, breaker: Breaker
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._timeout = timeout
        self._breaker = breaker
        self._queue: deque[tuple[Waiter, bytes]] = deque()
        self._connection: MultiplexedConnection | None = None
        #: When the circuit had last changed as the connection was laid. What is older than an
        #: outage is not used after it: the other end may have gone without a word.
        self._connected_since: float | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._scheduled = False
        #: Whether several calls came in one turn, the last time.
        self._together = False

    def send(self, command: Command) -> asyncio.Future[Any]:
        """Return a future for the reply."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._send(future, pack(command))
        return future

    def send_all(self, commands: list[Command]) -> asyncio.Future[list[Any]]:
        """Return a future for the replies, in one list."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if commands:
            self._send(Batch(future, len(commands)), b"".join(map(pack, commands)))
        else:
            future.set_result([])
        return future

    async def close(self) -> None:
        """Close the connection; whoever still waits is cancelled."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        connection, self._connection = self._connection, None
        waiters = [waiter for waiter, _ in self._queue]
        self._queue.clear()
        if connection is not None:
            waiters += connection.pending
            connection.end()
        for waiter in waiters:
            (waiter.future if isinstance(waiter, Batch) else waiter).cancel()
        # The transport closes its socket in the loop's next turn.
        await asyncio.sleep(0)

    def abandon(self) -> None:
        """Let the server know that it is over, though the loop was closed without a word."""
        if self._connection is not None:
            self._connection.shutdown()

    def _send(self, waiter: Waiter, packed: bytes) -> None:
        connection = self._connection
        # A call that comes alone need not wait for the turn's end, when what came with others goes
        # out in one write.
        if (
            connection is not None
            and not self._together
            and not connection.pending
            and not self._queue
            and self._connected_since == self._breaker.since
        ):
            connection.write(waiter, packed)
            return
        self._queue.append((waiter, packed))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._together = len(self._queue) > 1
        if not self._queue:
            return
        if not self._breaker.closed:
            self._refuse(CircuitOpenError())
            return
        if self._connection is not None and self._connected_since != self._breaker.since:
            self._connection.fail(RedisConnectionError("a connection of before an outage"))
        if self._connection is not None:
            self._connection.write_some(self._queue)
        elif self._connecting is None:
            # In a context of its own: a connection outlives the call that needed it first.
            self._connecting = self._loop.create_task(self._open(), context=contextvars.Context())

    def _ready(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def _open(self) -> None:
        connected_since = self._breaker.since
        try:
            connection = await self._connect()
            self._connection = MultiplexedConnection(
                connection, self._timeout, self._ready, self._lost
            )
            self._connected_since = connected_since
        except Exception as error:  # noqa: BLE001 - who waits gets it.
            self._refuse(as_unavailable(error) or error)
        finally:
            self._connecting = None
        self._ready()

    def _lost(self, connection: MultiplexedConnection) -> None:
        if self._connection is connection:
            self._connection = None
            self._ready()

    def _refuse(self, error: BaseException) -> None:
        queue, self._queue = self._queue, deque()
        for waiter, _packed in queue:
            refuse(waiter, error)
