# ruff: noqa: D102 - the methods of an operation are described in ``operations.base``
"""Clients of redis-py that send commands through the cache: one circuit, one deadline.

django-redis's client turns arguments into commands and replies into results by calling a client of
redis-py. Given one of the clients here, it needs no connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar, cast

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.commands.cluster import READ_COMMANDS

from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import (
    Awaited,
    Command,
    Operation,
    OperationContext,
    Refusal,
    Reply,
    Steps,
)
from cache_layer.backends.outage import CacheUnavailableError
from cache_layer.backends.redis.internals import Client

T = TypeVar("T")


class Backend(Protocol):
    """The methods of the cache backend that are needed here."""

    @property
    def context(self) -> OperationContext:
        """The context of operations without a namespace."""

    def run(self, operation: Operation[T]) -> T:
        """See ``ResilientCache.run``."""

    def arun(self, operation: Operation[T]) -> Awaited[T]:
        """See ``ResilientCache.arun``."""

    def unavailable(self, what: str) -> CacheUnavailableError:
        """Return the error of a call that only Redis can answer."""


class RedisCommand(Operation[Reply]):
    """Any command that only Redis can answer; the result is the reply, or an exception."""

    __slots__ = ("_backend", "_command", "_sent")
    refusal = Refusal.PASSED

    def __init__(self, backend: Backend, command: Command) -> None:
        self.context = backend.context
        self._backend = backend
        self._command = command
        self._sent = False

    @property
    def name(self) -> str:
        """The name of the command."""
        return str(self._command[0].decode())

    def steps(self) -> Steps[Reply]:
        self._sent = True
        (reply,) = yield [self._command]
        return reply

    def overwritten(self) -> tuple[str, ...]:
        # The only commands that replace a value of another type.
        if not self.name.endswith("STORE"):
            return ()
        return (self._command[1].decode("utf-8", "surrogatepass"),)

    def in_memory(self, store: MemoryStore) -> NoReturn:
        done = ", and may or may not have been done" if self._sent and self.writes else ""
        raise self._backend.unavailable(self.name + done)


class ReadCommand(RedisCommand):
    """A command that changes nothing."""

    __slots__ = ()
    refusal = Refusal.PASSED
    writes = False


class RoutedRedis(Redis):
    """A client of redis-py that passes its commands to a function."""

    def __init__(
        self, client: Redis, backend: Backend, send: Callable[[RedisCommand], object]
    ) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self.response_callbacks = client.response_callbacks
        self._backend = backend
        self._send = send

    def execute_command(self, *args: object, **options: object) -> Reply:
        """Send a command and return the reply as redis-py converts it."""
        reply = self._send(_command(self, self._backend, args))
        parse: Callable[..., object] = self.parse_response
        return parse(_Answered(reply), args[0], **options)


class AsyncRoutedRedis(AsyncRedis):
    """See ``RoutedRedis``; awaited."""

    def __init__(self, client: Redis, backend: Backend) -> None:
        # It provides the encoder, and nothing else.
        super().__init__(connection_pool=cast("Any", client.connection_pool))
        self._backend = backend

    async def execute_command(self, *args: Any, **options: Any) -> Reply:
        """See ``RoutedRedis.execute_command``."""
        reply = await self._backend.arun(_command(self, self._backend, args))
        return await self.parse_response(cast("Any", _AsyncAnswered(reply)), args[0], **options)


class Unanswered(Exception):  # noqa: N818 - a question, not an error
    """The next command of a call that is being repeated; its reply is not known yet."""

    def __init__(self, command: RedisCommand) -> None:
        super().__init__()
        self.command = command


class Replies:
    """Answers the commands of a call in order, while their replies are known."""

    def __init__(self, known: list[object]) -> None:
        self._known = iter(known)

    def __call__(self, command: RedisCommand) -> Reply:
        """Return the reply.

        Raises:
            Unanswered: The reply is not known.
        """
        for reply in self._known:
            return reply
        raise Unanswered(command)


class _Answered:
    """A connection on which one reply waits."""

    def __init__(self, reply: object) -> None:
        self._reply = reply

    def read_response(self, **_options: object) -> Reply:
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply


class _AsyncAnswered(_Answered):
    async def read_response(self, **options: object) -> Reply:
        return super().read_response(**options)


def _command(client: Client, backend: Backend, args: Command) -> RedisCommand:
    """Return the operation of a command of one or more words."""
    words, *others = args
    encode = client.get_encoder().encode
    # With its name in bytes it differs from the cache's own commands, whose replies are converted.
    command = (*words.encode().split(), *(bytes(encode(each)) for each in others))
    kind = ReadCommand if words in READ_COMMANDS else RedisCommand
    return kind(backend, command)
