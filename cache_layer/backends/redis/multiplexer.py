"""One multiplexed connection per event loop; commands queue until it is connected.

Commands are sent together and replies come back in order, each to the call that has waited longest.
``redis.asyncio`` sets the connection up (TLS, authentication, database). All classes here are used
from the thread of the event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from redis.exceptions import AskError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_layer.backends.operations.base import Command, Reply
from cache_layer.backends.redis.errors import (
    CircuitOpenError,
    RedisUnavailableError,
    as_unavailable,
)
from cache_layer.backends.redis.internals import Connection
from cache_layer.backends.redis.pool import SLOWEST
from cache_layer.backends.redis.resp import NOTHING, Push, make_reader, pack
from cache_layer.breaker import Breaker

#: Largest number of unanswered calls; further ones wait. It limits the buffers of both sides, so
#: that Redis never waits for this process.
WINDOW: Final = 1000
#: Largest size of commands joined in one write, in bytes; larger commands are written alone.
_PIECE: Final = 1 << 18
#: Seconds without any received byte after which an overdue reply counts as lost.
_MOVING: Final = 0.02
#: Seconds after which the loop has read what had arrived when a reply was found to be overdue.
#: With a pause of zero, some loops call the timer again before they read.
_SOON: Final = 0.001


class Batch:
    """The replies of several commands, for one caller."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[object]], commands: int) -> None:
        self.future = future
        self.missing = commands
        self.replies: list[Reply] = []

    def done(self) -> bool:
        """Return whether the caller has the replies, or has stopped waiting."""
        return self.future.done()


Waiter = Batch | asyncio.Future[Reply]


class MultiplexedConnection(asyncio.Protocol):
    """A connection that hands each reply to the call that has waited longest.

    Args:
        connection: A connected ``redis.asyncio`` connection, whose socket is taken over.
        timeout: Seconds that a reply may take; None for ever. A reply that takes longer ends the
            connection, since a later one could not be told from the replies to other calls. Time in
            which the event loop was busy, while replies had arrived unread, does not count.
        ready: Called when the connection can take more commands.
        lost: Called once, when the connection can no longer be used; its calls get the error.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float | None,
        ready: Callable[[], None],
        lost: Callable[[MultiplexedConnection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._ready = ready
        self._lost = lost
        self._reader = make_reader()
        #: The calls that wait for replies, in the order of their commands.
        self.pending: deque[Waiter] = deque()
        self._answered = 0
        self._sent = 0
        #: For each write, the time when its replies are due, and the number of calls sent until
        #: then.
        self._due: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        #: The time when a reply was last found to be overdue; 0 if none is.
        self._looked = 0.0
        #: Seconds waited for overdue replies, without the time in which the loop was busy.
        self._late = 0.0
        #: Whether a part of the first awaited reply has arrived.
        self._begun = False
        self._paused = False
        self._open = True
        # A stream writer closes its transport when it is collected.
        self._writer = connection._writer
        self._transport = cast("asyncio.Transport", self._writer.transport)
        # The connection itself must neither close it, nor warn that it is open.
        connection._writer = connection._reader = None
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            raise RedisConnectionError("Connection closed by server.")

    @property
    def full(self) -> bool:
        """Whether no more commands may be written before ``ready()`` is called."""
        return self._paused or len(self.pending) >= WINDOW

    def write(self, waiter: Waiter, packed: bytes) -> None:
        """Send the commands of one call."""
        self.pending.append(waiter)
        self._sent += 1
        self._transport.write(packed)
        self._expect(len(packed))

    def write_some(self, queue: deque[tuple[Waiter, bytes]]) -> None:
        """Send queued commands whose callers still wait, as far as there is room."""
        while queue and not self.full:
            pieces = []
            room = _PIECE
            while queue and room > 0 and len(self.pending) < WINDOW:
                waiter, packed = queue.popleft()
                if not waiter.done():
                    self.pending.append(waiter)
                    self._sent += 1
                    pieces.append(packed)
                    room -= len(packed)
            if pieces:
                piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self._transport.write(piece)
                self._expect(len(piece))

    def fail(self, error: BaseException) -> None:
        """End the connection; the calls that wait get the error."""
        if not self._open:
            return
        self.end()
        unavailable = as_unavailable(error)
        for waiter in self.pending:
            refuse(waiter, unavailable or error)
        self.pending.clear()
        self._lost(self)

    def end(self) -> None:
        """Close the connection at once, without calling ``lost``."""
        self._open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    def shutdown(self) -> None:
        """Close the socket of a connection whose event loop was closed before it."""
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that arrived."""
        reader = self._reader
        pending = self.pending
        answered = self._answered
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOTHING:
                if type(reply) is not bytes:
                    if type(reply) is Push:
                        continue
                    if isinstance(reply, AskError):
                        self._answered = answered
                        self.fail(RedisConnectionError("Another server owns the slot now."))
                        return
                waiter = pending[0]
                if type(waiter) is Batch:
                    waiter.replies.append(reply)
                    if len(waiter.replies) < waiter.missing:
                        continue
                    future: Any = waiter.future
                    reply = waiter.replies
                else:
                    future = waiter
                pending.popleft()
                answered += 1
                if not future.done():
                    future.set_result(reply)
        # IndexError: a reply without a command.
        except Exception as error:  # noqa: BLE001
            self._answered = answered
            self.fail(RedisConnectionError(f"Redis sent what is not its protocol: {error!r}"))
            return
        due = self._due
        while due and due[0][1] <= answered:
            due.popleft()
        # Whether a part of the next reply is here; whole replies say nothing about that.
        self._begun = answered == self._answered
        self._answered = answered
        if due:
            self._heard = self._loop.time()
            # A large reply on a slow link is progress.
            self._late -= len(data) / SLOWEST
        else:
            self._looked = 0.0
        self._ready()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection, which the server closed."""
        self.fail(exc or RedisConnectionError("Connection closed by server."))

    def pause_writing(self) -> None:
        """Stop writing: the socket takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Write again."""
        self._paused = False
        if self._open:
            self._ready()

    def _expect(self, size: int) -> None:
        if self._timeout is not None:
            deadline = self._loop.time() + self._timeout
            if self._due:
                # Its replies come behind those that are awaited already.
                deadline = max(deadline, self._due[-1][0])
            deadline += size / SLOWEST
            self._due.append((deadline, self._sent))
            if self._timer is None:
                self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        """Find out whether replies are overdue; one timer does so for all of them."""
        self._timer = None
        if not self._due or self._timeout is None:
            return
        now = self._loop.time()
        next_look = self._due[0][0]
        if next_look > now:
            self._looked = 0.0
        elif not self._looked:
            self._late = 0.0
            self._looked = now
            next_look = now + _SOON
        else:
            self._late += min(now - self._looked, 2 * _MOVING)
            still = self._heard < self._looked and now - self._heard > _MOVING
            if (still and not self._begun) or self._late > self._timeout:
                self.fail(RedisTimeoutError("Timeout reading from Redis"))
                return
            self._looked = now
            next_look = now + _MOVING
        self._timer = self._loop.call_at(next_look, self._look)


def refuse(waiter: Waiter, error: BaseException) -> None:
    """Let one call fail, with a new exception."""
    future: asyncio.Future[Reply] = waiter.future if isinstance(waiter, Batch) else waiter
    if future.done():
        return
    if isinstance(error, CircuitOpenError):
        error = CircuitOpenError()
    elif isinstance(error, RedisUnavailableError):
        own = RedisUnavailableError(error.reason, decisive=error.decisive)
        own.__cause__ = error.__cause__
        error = own
    future.set_exception(error)


class CommandQueue:
    """The commands of one event loop, and the connection that they go out on.

    The result of a future is a reply, or an exception that Redis answered; a future fails with
    ``RedisUnavailableError``. Cancelling a future does not disturb others.

    Args:
        connect: Returns a ``redis.asyncio`` connection that is set up.
        timeout: Seconds that a reply may take; None for ever.
        breaker: The circuit. While it is open, queued commands are refused.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[object]], timeout: float | None, breaker: Breaker
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._timeout = timeout
        self._breaker = breaker
        self._queue: deque[tuple[Waiter, bytes]] = deque()
        self._connection: MultiplexedConnection | None = None
        #: The circuit's epoch as the connection was made. A connection made before an outage is not
        #: used after it: the server may be gone without notice.
        self._epoch = -1
        self._connecting: asyncio.Task[None] | None = None
        self._scheduled = False
        #: Whether several calls came in one turn of the loop, the last time.
        self._together = False

    def send(self, command: Command) -> asyncio.Future[Reply]:
        """Send one command; return a future for its reply."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._send(future, pack(command))
        return future

    def send_all(self, commands: list[Command]) -> asyncio.Future[list[Reply]]:
        """Send commands; return a future for the list of their replies."""
        future: asyncio.Future[list[object]] = self._loop.create_future()
        if commands:
            self._send(Batch(future, len(commands)), b"".join(map(pack, commands)))
        else:
            future.set_result([])
        return future

    async def close(self) -> None:
        """Close the connection; calls that still wait are cancelled."""
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
        """Close the connection of an event loop that was closed without closing it."""
        if self._connection is not None:
            self._connection.shutdown()

    def _send(self, waiter: Waiter, packed: bytes) -> None:
        connection = self._connection
        # Calls that come together go out in one write at the end of the loop's turn. A call that
        # comes alone need not wait for that.
        if (
            connection is not None
            and not self._together
            and not connection.pending
            and not self._queue
            and self._epoch == self._breaker.epoch
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
        if not (self._breaker.closed or self._breaker.draining):
            self._refuse(CircuitOpenError())
            return
        if self._connection is not None and self._epoch != self._breaker.epoch:
            self._connection.fail(RedisConnectionError("the connection is older than an outage"))
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
        epoch = self._breaker.epoch
        try:
            connection = await self._connect()
            self._connection = MultiplexedConnection(
                connection, self._timeout, self._ready, self._lost
            )
            self._epoch = epoch
        except Exception as error:  # noqa: BLE001 - those who wait get it.
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
