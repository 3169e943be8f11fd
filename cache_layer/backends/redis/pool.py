"""Connections of synchronous callers: each call has one for itself, while it lasts.

redis-py sets a connection up (TLS, authentication, database); commands and replies then go past
it, for half of its time.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from redis import connection as redis_connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from cache_layer.backends.operations.base import Command
from cache_layer.backends.redis import internals
from cache_layer.backends.redis.cluster import SecureSlotConnection, SlotConnection
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
#: What only redis-py's own way of asking takes into account.
_BEYOND: Final = frozenset({"max_connections", "retry", "retry_on_error", "retry_on_timeout"})
_READ: Final = 1 << 16


class PooledConnection:
    """One connection. An error while it is used leaves it useless."""

    __slots__ = ("_connection", "_readable", "_reader", "_socket", "generation")

    def __init__(self, connection: Any, generation: int) -> None:
        connection.connect()
        self.generation = generation
        self._connection = connection
        self._socket = connection._sock
        self._reader = make_reader()
        self._readable = _readability(self._socket)

    def execute(self, command: Command) -> Any:
        """Return the reply, be it the exception that Redis answered with."""
        self._socket.sendall(pack(command))
        return self._reply(self._reader.gets())

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to several commands."""
        self._socket.sendall(b"".join(map(pack, commands)))
        replies: list[Any] = []
        get = self._reader.gets
        for _ in commands:
            # Most replies have come with the first.
            reply = get()
            replies.append(reply if type(reply) is bytes else self._reply(reply))
        return replies

    def quiet(self) -> bool:
        """Tell whether it is still there, as far as can be known without asking."""
        # Nothing is to be read from a good one, not even its end.
        return not self._readable()

    def close(self) -> None:
        """Close it."""
        self._connection.disconnect()

    def _reply(self, reply: Any) -> Any:
        """Return what has come, or else the next that comes, where it is an answer."""
        reader = self._reader
        while True:
            if reply is NOTHING:
                data = self._socket.recv(_READ)
                if not data:
                    raise RedisConnectionError("Connection closed by server.")
                reader.feed(data)
            elif type(reply) is bytes or type(reply) is not Push:
                return reply
            reply = reader.gets()


def _readability(connected: Any) -> Callable[[], object]:
    if not hasattr(select, "poll"):
        return lambda: select.select([connected], [], [], 0)[0]
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return partial(poll.poll, 0)


class Executor(Protocol):
    """Asks Redis on one of several connections; threads share it."""

    def execute(self, command: Command) -> Any:
        """Return what redis-py makes of the reply, be it an exception."""

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Return the same for several commands, in one round trip."""

    def renew(self) -> None:
        """Use no connection of before this any more."""


class ConnectionPool:
    """Asks past redis-py."""

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._callbacks = dict(client.response_callbacks)
        # Its pop and append are atomic. The one that was used last is taken first.
        self._idle: deque[PooledConnection] = deque()
        self._generation = 0

    def execute(self, command: Command) -> Any:
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

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
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
                return PooledConnection(pool.connection_class(**pool.connection_kwargs), generation)
            if channel.generation == self._generation and channel.quiet():
                return channel
            channel.close()

    def _give_back(self, channel: PooledConnection) -> None:
        if channel.generation == self._generation:
            self._idle.append(channel)
        else:
            channel.close()


class Client:
    """Asks as redis-py does, by its pool: behind Sentinel, with a limit, with retries."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def execute(self, command: Command) -> Any:
        """See ``Executor.execute``."""
        try:
            return self._client.execute_command(*command)
        except ResponseError as error:
            return error

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """See ``Executor.execute_all``."""
        if len(commands) == 1:
            return [self.execute(commands[0])]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def renew(self) -> None:
        """See ``Executor.renew``; redis-py looks after that itself."""


def executor_for(client: Any, limits: Collection[str]) -> Executor:
    """Return what asks over a client of redis-py.

    ``limits``: what the project says about the pool.
    """
    pool = getattr(client, "connection_pool", None)
    if (
        type(pool) is redis_connection.ConnectionPool
        and pool.connection_class in _CLASSES
        and _BEYOND.isdisjoint(limits)
        and internals.are_known(pool.connection_class(**pool.connection_kwargs), internals.SYNC)
    ):
        return ConnectionPool(client)
    return Client(client)


def called_back(
    callbacks: Mapping[Any, Callable[[Any], Any]], commands: Sequence[Command], replies: list[Any]
) -> list[Any]:
    """Return what redis-py makes of replies."""
    for index, command in enumerate(commands):
        callback = callbacks.get(command[0])
        if callback is not None and not isinstance(replies[index], Exception):
            replies[index] = callback(replies[index])
    return replies
