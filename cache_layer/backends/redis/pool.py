"""A pool of connections for synchronous callers; each call has a connection to itself.

redis-py sets a connection up (TLS, authentication, database); commands and replies then bypass
redis-py, which halves their time.
"""

from __future__ import annotations

import contextlib
import contextvars
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Protocol

from redis import connection as redis_connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_layer.backends.operations.base import Command, Reply
from cache_layer.backends.redis import internals
from cache_layer.backends.redis.cluster import SecureSlotConnection, SlotConnection
from cache_layer.backends.redis.internals import Client as RedisClient
from cache_layer.backends.redis.internals import Connection as RedisConnection
from cache_layer.backends.redis.resp import NOTHING, Push, make_reader, pack

_CLASSES: Final = frozenset(
    {
        redis_connection.Connection,
        redis_connection.SSLConnection,
        redis_connection.UnixDomainSocketConnection,
        SlotConnection,
        SecureSlotConnection,
    }
)
#: Options that only redis-py's own clients support.
_BEYOND: Final = frozenset({"max_connections", "retry", "retry_on_error", "retry_on_timeout"})
#: redis-py's conversions of replies, by the name of the command.
Callbacks = Mapping[object, Callable[[Reply], object]]
_READ: Final = 1 << 16
#: Size in bytes above which a command gets extra time for a slow link.
_LARGE: Final = 1 << 16
#: Speed of the slowest supported link, in bytes a second.
SLOWEST: Final = 1_000_000


class PooledConnection:
    """One connection. After an error it cannot be used again.

    Args:
        connection: A connection of redis-py that is not connected yet.
        generation: The number of renewals of the pool before it was made.
        patience: Seconds that connecting may take in all; None for ever.
    """

    __slots__ = ("_connection", "_readable", "_reader", "_socket", "_timeout", "generation")

    def __init__(
        self, connection: RedisConnection, generation: int, patience: float | None
    ) -> None:
        connect_within(connection, patience)
        self.generation = generation
        self._connection = connection
        self._socket = connection._sock
        self._timeout: float | None = connection.socket_timeout
        self._reader = make_reader()
        self._readable = _readability(self._socket)

    def execute(self, command: Command) -> Reply:
        """Return the reply, which may be an exception that Redis answered."""
        packed = pack(command)
        if len(packed) > _LARGE:
            return self._exchange(packed, 1)[0]
        # Nearly all replies arrive in one piece and take one wait, which the socket limits, so no
        # clock is needed.
        connected, reader = self._socket, self._reader
        connected.sendall(packed)
        data = connected.recv(_READ)
        reader.feed(data)
        reply = reader.gets()
        if type(reply) is bytes or (reply is not NOTHING and type(reply) is not Push):
            return reply
        return self._replies(reply, 1, len(packed) + len(data))[0]

    def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to several commands; to none, if a step has none to send."""
        if not commands:
            return []
        return self._exchange(b"".join(map(pack, commands)), len(commands))

    def quiet(self) -> bool:
        """Return whether the connection is still open, as far as is known without a command."""
        # A good connection has nothing to read, not even its end. What is left of a reply would be
        # taken for the reply to the next command.
        return not self._readable() and not self._reader.has_data()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _exchange(self, packed: bytes, number: int) -> list[Reply]:
        """Send commands and return their replies.

        Python's timeout of a socket is for each wait. An exchange takes at most two timeouts and
        the time that its bytes need on the slowest supported link.
        """
        moved = len(packed)
        if moved > _LARGE:
            self._socket.settimeout(self._left(0, moved))
        self._socket.sendall(packed)
        data = self._socket.recv(_READ)
        self._reader.feed(data)
        return self._replies(self._reader.gets(), number, moved + len(data))

    def _replies(self, reply: Reply, number: int, moved: int) -> list[Reply]:
        """Return the replies to ``number`` commands, after a first wait for bytes.

        Args:
            reply: The last result of the reader.
            number: The number of replies to return.
            moved: Number of bytes sent and received in the exchange.
        """
        connected, reader = self._socket, self._reader
        replies: list[Reply] = []
        began = 0.0
        get, append = reader.gets, replies.append
        while len(replies) < number:
            if reply is NOTHING:
                connected.settimeout(self._left(began, moved))
                began = began or time.monotonic()
                data = connected.recv(_READ)
                if not data:
                    raise RedisConnectionError("Connection closed by server.")
                reader.feed(data)
                moved += len(data)
            elif type(reply) is not Push:
                append(reply)
                if len(replies) == number:
                    break
            reply = get()
        while (reply := get()) is not NOTHING:
            if type(reply) is not Push:
                raise RedisConnectionError("Redis sent more replies than it got commands.")
        if began or moved > _LARGE:
            connected.settimeout(self._timeout)
        return replies

    def _left(self, began: float, moved: int) -> float | None:
        """Return the seconds left to wait in an exchange that has moved a number of bytes."""
        if self._timeout is None:
            return None
        left = self._timeout + moved / SLOWEST
        if began:
            left += began - time.monotonic()
        if left <= 0:
            raise RedisTimeoutError("Redis answers too slowly")
        return left


def connect_within(connection: RedisConnection, seconds: float | None) -> None:
    """Connect within a number of seconds, from the name to the handshake.

    Some of the steps (name, address, TLS, authentication) have no timeout, so a thread runs them.

    Raises:
        RedisTimeoutError: The steps took longer; the thread then closes the connection.
    """
    if seconds is None:
        connection.connect()
        return
    ended: Future[None] = Future()

    def connect() -> None:
        try:
            connection.connect()
        except BaseException as error:  # noqa: BLE001 - raised by who waits.
            outcome: BaseException | None = error
        else:
            outcome = None
        if not ended.set_running_or_notify_cancel():
            connection.disconnect()
        elif outcome is None:
            ended.set_result(None)
        else:
            ended.set_exception(outcome)

    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(connect,), name="cache-layer-connect", daemon=True)
    thread.start()
    try:
        ended.result(seconds)
    except TimeoutError:
        if ended.cancel():
            raise RedisTimeoutError("Timeout connecting to server") from None
        ended.result()


def _readability(connected: RedisConnection) -> Callable[[], object]:
    if not hasattr(select, "poll"):
        return lambda: select.select([connected], [], [], 0)[0]
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return partial(poll.poll, 0)


class Executor(Protocol):
    """Sends commands to Redis on one of several connections; threads share it."""

    def execute(self, command: Command) -> Reply:
        """Return the reply as redis-py converts it, which may be an exception."""

    def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to several commands, in one round trip."""

    def renew(self) -> None:
        """Stop using all connections made before this call."""


class ConnectionPool:
    """Sends commands without redis-py."""

    def __init__(self, client: RedisClient, patience: float | None) -> None:
        self._pool = client.connection_pool
        self._patience = patience
        self._callbacks = dict(client.response_callbacks)
        # Its pop and append are atomic. The most recently used connection is taken first.
        self._idle: deque[PooledConnection] = deque()
        self._generation = 0

    def execute(self, command: Command) -> Reply:
        """See ``Executor.execute``."""
        channel = self._take()
        try:
            reply = channel.execute(command)
        except BaseException:
            channel.close()
            raise
        self._give_back(channel)
        callback = self._callbacks.get(command[0])
        return reply if callback is None or isinstance(reply, Exception) else callback(reply)

    def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """See ``Executor.execute_all``."""
        channel = self._take()
        try:
            replies = channel.execute_all(commands)
        except BaseException:
            channel.close()
            raise
        self._give_back(channel)
        return called_back(self._callbacks, commands, replies)

    def renew(self) -> None:
        """See ``Executor.renew``; what is in use is closed when it is given back."""
        self._generation += 1
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> PooledConnection:
        while True:
            try:
                channel = self._idle.pop()
            except IndexError:
                pool = self._pool
                generation = self._generation
                connection = pool.connection_class(**pool.connection_kwargs)
                return PooledConnection(connection, generation, self._patience)
            if channel.generation == self._generation and channel.quiet():
                return channel
            channel.close()

    def _give_back(self, channel: PooledConnection) -> None:
        if channel.generation == self._generation:
            self._idle.append(channel)
        else:
            channel.close()


class Client:
    """Sends commands with redis-py's pool: behind Sentinel, with a limit, with retries."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def execute(self, command: Command) -> Reply:
        """See ``Executor.execute``."""
        try:
            return self._client.execute_command(*command)
        except ResponseError as error:
            return error

    def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """See ``Executor.execute_all``."""
        if len(commands) == 1:
            return [self.execute(commands[0])]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Reply] = pipeline.execute(raise_on_error=False)
        return replies

    def renew(self) -> None:
        """See ``Executor.renew``; redis-py looks after that itself."""


def executor_for(client: object, limits: Collection[str], patience: float | None) -> Executor:
    """Return the executor that sends commands for a client of redis-py.

    Args:
        client: The client.
        limits: The names of the options that the project gives the pool.
        patience: Seconds that connecting may take in all; None for ever.
    """
    pool = getattr(client, "connection_pool", None)
    if (
        type(pool) is redis_connection.ConnectionPool
        and pool.connection_class in _CLASSES
        and _BEYOND.isdisjoint(limits)
        and internals.are_known(pool.connection_class(**pool.connection_kwargs), internals.SYNC)
    ):
        return ConnectionPool(client, patience)
    return Client(client)


def called_back(
    callbacks: Callbacks, commands: Sequence[Command], replies: list[Reply]
) -> list[Reply]:
    """Return replies as redis-py converts them."""
    for index, command in enumerate(commands):
        callback = callbacks.get(command[0])
        if callback is not None and not isinstance(replies[index], Exception):
            replies[index] = callback(replies[index])
    return replies
