"""Carries operations to Redis synchronously, over the client that django-redis makes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis.client import DefaultClient, ShardClient
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError
from redis.retry import Retry

from cache_layer.backends.encoding import DEFAULT_SERIALIZER
from cache_layer.backends.operations.base import Command, Operation, Reply, Single, raw
from cache_layer.backends.operations.lua import Script
from cache_layer.backends.redis.cluster import hash_tag, is_clustered, slot_of
from cache_layer.backends.redis.errors import Meaning, meaning, raise_outage, raise_refusal
from cache_layer.backends.redis.handshake import ServerIdentity
from cache_layer.backends.redis.internals import Connection
from cache_layer.backends.redis.pool import Executor, executor_for
from cache_layer.conf import options_of, settings

T = TypeVar("T")


class Transport:
    """Carries operations to the Redis of one store, for all threads of the process.

    Args:
        location: The LOCATION of the ``CACHES`` entry.
        params: The entry.
        backend: An instance of the entry's backend.
        probe_key: A key that the user may write, for probes. Probes write, so that a read-only
            Redis does not count as healthy.
        new_server: Makes the ``ServerIdentity``, at first and after a fork.
    """

    def __init__(
        self,
        location: Any,
        params: dict[str, Any],
        backend: BaseCache,
        probe_key: str,
        new_server: Callable[[], ServerIdentity],
    ) -> None:
        self._probe_key = raw(probe_key)
        self._new_server = new_server
        self._location = location
        self._backend = backend
        self._params = {**params, "OPTIONS": with_defaults(options_of(params))}
        options = self._params["OPTIONS"]
        #: A command that the server in use answers, and no other.
        self.sign_of_life: Command = ("PING",)
        if is_clustered(options):
            options["CONNECTION_POOL_KWARGS"]["slot"] = slot_of(hash_tag(backend))
            # While the slot moves, a node refuses to read a key in it that it does not have. The
            # key of probes is missing but for a second after a recovery.
            self.sign_of_life = ("GETRANGE", self._probe_key, 0, 0)
        self.server = new_server()
        #: Largest number of seconds for a reply; None if the project has no timeout.
        self.timeout: float | None = options["SOCKET_TIMEOUT"]
        timeouts = self.timeout, options["SOCKET_CONNECT_TIMEOUT"]
        #: Largest number of seconds for a call that is not ``long``; None if the project has no
        #: timeout.
        self.budget = max(timeouts) if all(timeouts) else None
        self._lock = threading.Lock()
        self._limits = options_of(params).get("CONNECTION_POOL_KWARGS", {}).keys()
        self._made: tuple[DefaultClient, Executor] | None = None
        self._inherited: list[Reply] = []

    def run(self, operation: Operation[T]) -> T:
        """Run an operation on Redis.

        Raises:
            RedisUnavailableError: Redis cannot be used; a write may or may not have happened.
        """
        try:
            executor = self._executor()
            if isinstance(operation, Single):
                single: Single[T] = operation
                return self._run_single(executor, single)
            return self._run_steps(executor, operation)
        except Exception as error:
            raise_outage(error)
            raise

    def probe(self) -> None:
        """Check that Redis can be read and written.

        Raises:
            RedisUnavailableError: Redis cannot be used.
        """
        # As many round trips as the most frequent calls, within their time.
        deadline = self.deadline()
        key = self._probe_key
        try:
            for command in (("SET", key, b"1", "PX", 1000), ("GET", key)):
                reply = self._executor().execute(command)
                if isinstance(reply, Exception):
                    raise reply
            if time.monotonic() > deadline:
                raise TimeoutError("Redis is slow to answer")
        except Exception as error:
            # The next connection may lead to another server.
            self.renew()
            raise_outage(error)
            raise

    def deadline(self, budgets: int = 1) -> float:
        """Return the deadline of a call that begins now and may take a number of budgets."""
        return math.inf if self.budget is None else time.monotonic() + self.budget * budgets

    @property
    def client(self) -> DefaultClient:
        """django-redis's client, made at first use."""
        made = self._made
        return made[0] if made is not None else self._make()[0]

    def listener(self) -> Connection:
        """Return a new unconnected connection for messages that Redis sends without a command."""
        pool = self.client.get_client(write=True).connection_pool
        return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[1].renew()
            made[0].do_close_clients()

    def renew(self) -> None:
        """Stop using all connections made before this call, which may be dead without notice."""
        made = self._made
        if made is not None:
            made[1].renew()

    def after_fork(self) -> None:
        """Forget the parent's clients in a forked child; their locks may be held for ever.

        References keep them from being collected, which would close the parent's connections.
        """
        self._lock = threading.Lock()
        self._inherited.append(self._made)
        self._made = None
        self.server = self._new_server()

    def _executor(self) -> Executor:
        made = self._made
        return made[1] if made is not None else self._make()[1]

    def _make(self) -> tuple[DefaultClient, Executor]:
        with self._lock:
            if self._made is None:
                options = self._params["OPTIONS"]
                if refused := spreading_client(options):
                    raise ImproperlyConfigured(
                        f"{refused} spreads keys over several servers, which this backend does "
                        "not do. Use one server, one with replicas behind Sentinel, or "
                        "ClusterConnectionFactory."
                    )
                client_class = import_string(
                    options.get("CLIENT_CLASS", "django_redis.client.DefaultClient")
                )
                options["CONNECTION_POOL_KWARGS"]["redis_connect_func"] = self.server.handshake
                client = client_class(self._location, self._params, self._backend)
                # django-redis shares pools by URL alone: a second alias on the same URL would get
                # the options of the first.
                client.connection_factory._pools = {}
                # Reads go to the primary too: a replica may not have received an invalidation yet.
                self._made = (
                    client,
                    executor_for(client.get_client(write=True), self._limits, self.budget),
                )
            return self._made

    def _run_single(self, executor: Executor, operation: Single[T]) -> T:
        command = operation.command()
        reply = executor.execute(command)
        while isinstance(reply, Exception):
            again = otherwise(command, reply)
            if again is None:
                return refused(operation, reply)
            command, reply = again, executor.execute(again)
        return operation.parse(reply)

    def _run_steps(self, executor: Executor, operation: Operation[T]) -> T:
        deadline = math.inf if operation.long else self.deadline()
        steps = operation.steps()
        try:
            commands = next(steps)
            while True:
                replies = executor.execute_all(commands)
                while again := to_repeat(commands, replies):
                    repeated = executor.execute_all(list(again.values()))
                    merge(again, repeated, commands, replies)
                commands = steps.send(checked(operation, replies))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result


def otherwise(command: Command, reply: object) -> Command | None:
    """Return another command with the same effect, if Redis does not know or allow this one."""
    if not isinstance(reply, Exception):
        return None
    if isinstance(reply, NoScriptError) or meaning(reply) is Meaning.REFUSED:
        return Script.otherwise(command)
    return None


def to_repeat(commands: list[Command], replies: list[object]) -> dict[int, Command]:
    """Return the commands to send in place of refused ones, by position."""
    return {
        index: again
        for index, reply in enumerate(replies)
        if isinstance(reply, Exception) and (again := otherwise(commands[index], reply))
    }


def merge(
    again: dict[int, Command],
    repeated: list[object],
    commands: list[Command],
    replies: list[object],
) -> None:
    """Replace refused commands and replies by those that were sent again."""
    for (index, command), reply in zip(again.items(), repeated, strict=True):
        commands[index], replies[index] = command, reply


def refused(operation: Single[T], reply: Exception) -> T:
    """Return the result of an operation whose command Redis refused, or raise the error for it."""
    raise_refusal(operation, reply)
    return operation.rejected()


def checked(operation: Operation[T], replies: list[object]) -> list[Reply]:
    """Return replies that the operation can handle, or raise the error for a refusal."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise_refusal(operation, reply)
    return replies


def spreading_client(options: dict[str, object]) -> str:
    """Name the client class that spreads keys over several servers, if the options ask for one."""
    for name in ("CLIENT_CLASS", "REDIS_CLIENT_CLASS"):
        path = options.get(name)
        found = import_string(path) if isinstance(path, str) else path
        if isinstance(found, type) and issubclass(found, ShardClient | RedisCluster):
            return str(path)
    return ""


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Complete django-redis's ``OPTIONS`` with defaults that the cache needs."""
    options = dict(options)
    options.setdefault("SERIALIZER", DEFAULT_SERIALIZER)
    options.setdefault("SOCKET_TIMEOUT", settings.OPERATION_TIMEOUT)
    options.setdefault("SOCKET_CONNECT_TIMEOUT", settings.CONNECT_TIMEOUT)
    if "SENTINELS" in options:
        options["SENTINEL_KWARGS"] = {
            "socket_timeout": options["SOCKET_TIMEOUT"],
            "socket_connect_timeout": options["SOCKET_CONNECT_TIMEOUT"],
            "retry": Retry(NoBackoff(), 0),
            **options.get("SENTINEL_KWARGS", {}),
        }
    options["CONNECTION_POOL_KWARGS"] = {
        # A retry would multiply the timeout. The pool reconnects a dropped idle connection.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # A thread uses one connection at a time, so threads are the limit.
        "max_connections": 2**31,
        **options.get("CONNECTION_POOL_KWARGS", {}),
        "decode_responses": False,
    }
    return options
