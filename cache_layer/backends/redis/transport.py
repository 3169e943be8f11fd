"""Carries operations to Redis synchronously, over the client that django-redis makes."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Final, TypeVar

from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis.client import DefaultClient, ShardClient
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError
from redis.retry import Retry

from cache_layer.backends.encoding import DEFAULT_SERIALIZER
from cache_layer.backends.operations.base import Command, Operation, Single, raw
from cache_layer.backends.operations.lua import Script
from cache_layer.backends.redis.cluster import hash_tag, is_clustered, slot_of
from cache_layer.backends.redis.errors import as_unavailable, translated
from cache_layer.backends.redis.handshake import ServerIdentity
from cache_layer.backends.redis.pool import Executor, executor_for
from cache_layer.conf import options_of, settings

T = TypeVar("T")

#: Written by probes, so that a Redis that only reads is not taken for healthy. It is under no
#: alias's prefix and expires by itself.
PROBE_KEY: Final = b"cache_layer:probe"


class Transport:
    """One per process and alias; threads share it."""

    def __init__(self, location: Any, params: dict[str, Any], backend: BaseCache) -> None:
        self._location = location
        self._backend = backend
        self._params = {**params, "OPTIONS": with_defaults(options_of(params))}
        options = self._params["OPTIONS"]
        #: What all keys that are written beside the alias's own end with: its hash tag on a
        #: cluster, nothing elsewhere.
        self.tag = b""
        if is_clustered(options):
            tag = hash_tag(backend)
            self.tag = raw(tag)
            options["CONNECTION_POOL_KWARGS"]["slot"] = slot_of(tag)
        self._new_server()
        #: Seconds that a reply may take; None where the project wants no timeout.
        self.timeout: float | None = options["SOCKET_TIMEOUT"]
        timeouts = self.timeout, options["SOCKET_CONNECT_TIMEOUT"]
        #: Seconds that a call may take, unless it is of many round trips by its nature; None
        #: where the project wants no timeout.
        self.budget = max(timeouts) if all(timeouts) else None
        self._lock = threading.Lock()
        self._limits = options_of(params).get("CONNECTION_POOL_KWARGS", {}).keys()
        self._made: tuple[Any, Executor] | None = None
        self._inherited: list[Any] = []

    def run(self, operation: Operation[T]) -> T:
        """Do an operation on Redis.

        :raises RedisUnavailableError: Redis cannot be used; a write may or may not have happened.
        """
        with translated:
            executor = self._executor()
            if isinstance(operation, Single):
                single: Single[T] = operation
                return self._run_single(executor, single)
            deadline = math.inf if operation.long else self.deadline()
            return self._run_steps(executor, operation, deadline)

    def probe(self) -> None:
        """Look whether Redis can be read and written.

        :raises RedisUnavailableError: it cannot.
        """
        # As many round trips as the calls that are made most, in the time that they have.
        deadline = self.deadline()
        key = PROBE_KEY + self.tag
        with translated:
            try:
                for command in (("SET", key, b"1", "PX", 1000), ("GET", key)):
                    checked([self._executor().execute(command)])
                if time.monotonic() > deadline:
                    raise TimeoutError("Redis is slow to answer")
            except Exception:
                # The next one may find another server.
                self.renew()
                raise

    def deadline(self, budgets: int = 1) -> float:
        """Return when a call that begins now, and may take so many budgets, has to end."""
        return math.inf if self.budget is None else time.monotonic() + self.budget * budgets

    @property
    def client(self) -> DefaultClient:
        """django-redis's client, made at first use."""
        made = self._made
        return made[0] if made is not None else self._make()[0]

    def listener(self) -> Any:
        """Return a connection of its own, not connected yet, on which Redis may speak unasked."""
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
        """Use no connection of before this any more: the other end may have gone without a word."""
        made = self._made
        if made is not None:
            made[1].renew()

    def after_fork(self) -> None:
        """Forget the parent's clients in a forked child; their locks may be held for ever.

        They are kept from being collected, which would close what the parent still uses.
        """
        self._lock = threading.Lock()
        self._inherited.append(self._made)
        self._made = None
        self._new_server()

    def _new_server(self) -> None:
        self.server = ServerIdentity(
            trust_after_restart=bool(self._params["OPTIONS"].get("KEEP_AFTER_RESTART")),
            clustered=bool(self.tag),
        )

    def _executor(self) -> Executor:
        made = self._made
        return made[1] if made is not None else self._make()[1]

    def _make(self) -> tuple[Any, Executor]:
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
                # Reads go to the primary too: a replica may not have heard of an invalidation yet.
                self._made = (client, executor_for(client.get_client(write=True), self._limits))
            return self._made

    def _run_single(self, executor: Executor, operation: Single[T]) -> T:
        command = operation.command()
        reply = executor.execute(command)
        if isinstance(reply, NoScriptError):
            reply = executor.execute(Script.in_full(command))
        return refused(operation, reply) if isinstance(reply, Exception) else operation.parse(reply)

    def _run_steps(self, executor: Executor, operation: Operation[T], deadline: float) -> T:
        steps = operation.steps()
        try:
            commands = next(steps)
            while True:
                replies = self._replies(executor, commands)
                commands = steps.send(checked(replies, operation.reports_permissions))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result

    @staticmethod
    def _replies(executor: Executor, commands: list[Command]) -> list[Any]:
        replies = executor.execute_all(commands)
        unknown = unknown_scripts(commands, replies)
        if unknown:
            again = executor.execute_all([Script.in_full(commands[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return replies


def refused(operation: Single[T], reply: Exception) -> T:
    """Return what it means that one command was refused, or raise: nothing would be done."""
    if isinstance(reply, ResponseError) and as_unavailable(reply) is None:
        return operation.rejected()
    raise reply


def unknown_scripts(commands: list[Command], replies: list[Any]) -> list[int]:
    """Return which commands called a script that the server does not know."""
    return [
        index
        for index, reply in enumerate(replies)
        if isinstance(reply, NoScriptError) and commands[index][0] == "EVALSHA"
    ]


def checked(replies: list[Any], reports_permissions: bool = False) -> list[Any]:
    """Return replies as they are, or raise the one that says that Redis cannot be used.

    ``reports_permissions``: see ``Operation``.
    """
    for reply in replies:
        if isinstance(reply, Exception) and as_unavailable(reply) is not None:
            if reports_permissions and isinstance(reply, NoPermissionError):
                continue
            raise reply
    return replies


def spreading_client(options: dict[str, Any]) -> str:
    """Name the client class that spreads keys over several servers, if the options ask for one."""
    for name in ("CLIENT_CLASS", "REDIS_CLIENT_CLASS"):
        path = options.get(name)
        found = import_string(path) if isinstance(path, str) else path
        if isinstance(found, type) and issubclass(found, ShardClient | RedisCluster):
            return str(path)
    return ""


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Complete django-redis's ``OPTIONS`` by what it and redis-py leave to chance."""
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
