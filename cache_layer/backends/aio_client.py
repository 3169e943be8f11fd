"""The ``redis.asyncio`` client that matches a synchronous one made by django-redis."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import connection as sync_connection
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio import connection as async_connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.sentinel import SentinelConnectionPool

from cache_layer.backends import cluster

UNLIMITED: Final = 2**31

#: Belongs to the synchronous connection and has an equivalent that the asynchronous one makes.
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


def async_client(client: Any, greet: Callable[[Any], Awaitable[None]]) -> tuple[Any, int | None]:
    """Return a client with the same address and options, and its limit of connections.

    ``greet`` sets up each new connection.

    The limit is None when nobody set one. The client is None when there is no such client (Redis
    Cluster, classes of the project's own).
    """
    pool = getattr(client, "connection_pool", None)
    limit = getattr(pool, "max_connections", UNLIMITED)
    limit = None if limit >= UNLIMITED else limit
    if isinstance(pool, SentinelConnectionPool):
        return _sentinel_client(pool, greet), limit
    connection_class = _twin(getattr(pool, "connection_class", None))
    if pool is None or connection_class is None:
        return None, limit
    options = _options(pool.connection_kwargs, connection_class)
    made = ConnectionPool(
        connection_class=connection_class,
        max_connections=UNLIMITED - 1,
        redis_connect_func=greet,
        **options,
    )
    return Redis(connection_pool=made), limit


async def close_client(client: Any) -> None:
    """Close the connections, those to sentinels too."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for each in (client, *(manager.sentinels if manager else ())):
        await each.aclose(close_connection_pool=True)


def _twin(connection_class: Any) -> Any:
    twins = {
        sync_connection.Connection: async_connection.Connection,
        sync_connection.SSLConnection: async_connection.SSLConnection,
        sync_connection.UnixDomainSocketConnection: async_connection.UnixDomainSocketConnection,
        cluster.SlotConnection: cluster.AwaitedSlotConnection,
        cluster.SecureSlotConnection: cluster.SecureAwaitedSlotConnection,
    }
    return twins.get(connection_class)


def _sentinel_client(pool: Any, greet: Callable[[Any], Awaitable[None]]) -> Any:
    manager = pool.sentinel_manager
    addresses = [
        (kwargs["host"], kwargs["port"])
        for kwargs in (s.connection_pool.connection_kwargs for s in manager.sentinels)
    ]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses,
        sentinel_kwargs=_options(manager.sentinel_kwargs, async_connection.Connection),
    )
    options = _options(pool.connection_kwargs, async_connection.SSLConnection)
    secure = issubclass(pool.connection_class, sync_connection.SSLConnection)
    find = sentinel.master_for if pool.is_master else sentinel.slave_for
    return find(
        pool.service_name,
        ssl=secure,
        max_connections=UNLIMITED - 1,
        redis_connect_func=greet,
        **options,
    )


def _options(options: dict[str, Any], connection_class: type) -> dict[str, Any]:
    """Return those options that the asynchronous connection knows as well."""
    known = {
        name
        for cls in connection_class.__mro__[:-1]
        for name in inspect.signature(vars(cls).get("__init__", cls)).parameters
    }
    kept = {name: value for name, value in options.items() if name in known - _OWN}
    return {**kept, "retry": Retry(NoBackoff(), 0)}
