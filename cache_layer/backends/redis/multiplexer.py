"""One connection to Redis that many calls share: commands go out together, replies come in order.

It works on what a ``redis.asyncio`` connection has set up (TLS, authentication, database) and is
used from the thread of its event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from redis.exceptions import AskError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_layer.backends.redis.errors import RedisUnavailableError, as_unavailable
from cache_layer.backends.redis.resp import NOTHING, is_push, make_reader

#: Calls without a reply; further ones wait for their turn. It bounds what the buffers of both
#: sides hold, and enough for Redis never to wait for this process.
WINDOW: Final = 1000
#: Bytes joined for one write; larger commands go out alone.
_PIECE: Final = 1 << 18
#: Seconds within which something must arrive for an overdue reply to be waited for yet.
_MOVING: Final = 0.02
#: Seconds after which the loop has read what lay there when a reply was found to be overdue. With
#: none at all, some loops look again before they read.
_SOON: Final = 0.001


class Batch:
    """The replies of several commands, for one caller."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], commands: int) -> None:
        self.future = future
        self.missing = commands
        self.replies: list[Any] = []

    def done(self) -> bool:
        """Whether nobody waits for them any more."""
        return self.future.done()


Waiter = Batch | asyncio.Future[Any]


class MultiplexedConnection(asyncio.Protocol):
    """Hands each reply to whoever waits the longest.

    ``ready`` is called when it can take more, ``lost`` once, when it cannot be used any more;
    whoever waited then gets the error. A reply that takes longer than ``timeout`` seconds loses
    it: what would come later could not be told from other replies. Time in which this loop did
    other things, while replies lay there to be read, does not count.
    """

    def __init__(
        self,
        connection: Any,
        timeout: float | None,
        ready: Callable[[], None],
        lost: Callable[[MultiplexedConnection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._ready = ready
        self._lost = lost
        self._reader = make_reader()
        #: Who waits for replies, in the order of the commands. Read by others, changed here.
        self.pending: deque[Waiter] = deque()
        self._answered = 0
        self._sent = 0
        #: For each write, when its replies are due, and how many were sent with it and before.
        self._due: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        #: When a reply was last found to be overdue; 0 while none is. Since then the loop has read.
        self._looked = 0.0
        #: Seconds that overdue replies were waited for, without what else the loop did meanwhile.
        self._late = 0.0
        self._paused = False
        self._open = True
        # Writers close what they write to when they are collected.
        self._writer = connection._writer
        self._transport = cast("asyncio.Transport", self._writer.transport)
        # Nor must the connection's own end close it, or complain that nobody did.
        connection._writer = connection._reader = None
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            raise RedisConnectionError("Connection closed by server.")

    @property
    def full(self) -> bool:
        """Whether it takes no more commands before it has said ``ready()``."""
        return self._paused or len(self.pending) >= WINDOW

    def write(self, waiter: Waiter, packed: bytes) -> None:
        """Send what one caller waits for."""
        self.pending.append(waiter)
        self._sent += 1
        self._transport.write(packed)
        self._expect()

    def write_some(self, queue: deque[tuple[Waiter, bytes]]) -> None:
        """Send what is queued, as far as it is wanted yet and there is room."""
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
                self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                self._expect()

    def fail(self, error: BaseException) -> None:
        """End it; who waits gets the error."""
        if not self._open:
            return
        self.end()
        unavailable = as_unavailable(error)
        for waiter in self.pending:
            refuse(waiter, unavailable or error)
        self.pending.clear()
        self._lost(self)

    def end(self) -> None:
        """Close it at once, without a word to anybody."""
        self._open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    def shutdown(self) -> None:
        """Tell the other end that it is over; the only thing to do once the loop is closed."""
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        reader = self._reader
        pending = self.pending
        answered = self._answered
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOTHING:
                if type(reply) is not bytes:
                    if is_push(reply):
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
        # IndexError: a reply that nobody asked for.
        except Exception as error:  # noqa: BLE001
            self._answered = answered
            self.fail(RedisConnectionError(f"what Redis sent makes no sense: {error!r}"))
            return
        self._answered = answered
        due = self._due
        while due and due[0][1] <= answered:
            due.popleft()
        if due:
            self._heard = self._loop.time()
        else:
            self._looked = 0.0
        self._ready()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.fail(exc or RedisConnectionError("Connection closed by server."))

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._paused = False
        if self._open:
            self._ready()

    def _expect(self) -> None:
        if self._timeout is not None:
            deadline = self._loop.time() + self._timeout
            self._due.append((deadline, self._sent))
            if self._timer is None:
                self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        """Look whether replies are overdue: one timer for all of them."""
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
            if still or self._late > self._timeout:
                self.fail(RedisTimeoutError("Timeout reading from Redis"))
                return
            self._looked = now
            next_look = now + _MOVING
        self._timer = self._loop.call_at(next_look, self._look)


def refuse(waiter: Waiter, error: BaseException) -> None:
    """Let a caller fail, with an exception of its own where many share one."""
    future: asyncio.Future[Any] = waiter.future if isinstance(waiter, Batch) else waiter
    if future.done():
        return
    if isinstance(error, RedisUnavailableError):
        own = RedisUnavailableError(error.reason, decisive=error.decisive)
        own.__cause__ = error.__cause__
        error = own
    future.set_exception(error)
