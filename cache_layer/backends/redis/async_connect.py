"""Makes ``redis.asyncio`` connections that match a synchronous client made by django-redis."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import connection as sync_connection
from redis.asyncio import connection as async_connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.sentinel import SentinelConnectionPool as SyncSentinelConnectionPool

from cache_layer.backends.redis import cluster

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

Connect = Callable[[], Awaitable[Any]]
Greet = Callable[[Any], Awaitable[None]]


def connector(client: Any, handshake: Greet) -> Connect | None:
    """Return what makes and sets up a connection to the same address, with the same options.

    ``handshake`` sets up each new connection. None when there is no such connection (Redis Cluster,
    classes of the project's own).
    """
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SyncSentinelConnectionPool):
        return _through_sentinel(pool, handshake)
    connection_class = _twin(getattr(pool, "connection_class", None))
    if pool is None or connection_class is None:
        return None
    options = _options(pool.connection_kwargs, connection_class)

    async def connect() -> Any:
        return await _connected(connection_class(redis_connect_func=handshake, **options))

    return connect


async def _connected(connection: Any) -> Any:
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _twin(connection_class: Any) -> Any:
    twins = {
        sync_connection.Connection: async_connection.Connection,
        sync_connection.SSLConnection: async_connection.SSLConnection,
        sync_connection.UnixDomainSocketConnection: async_connection.UnixDomainSocketConnection,
        cluster.SlotConnection: cluster.AwaitedSlotConnection,
        cluster.SecureSlotConnection: cluster.SecureAwaitedSlotConnection,
    }
    return twins.get(connection_class)


def _through_sentinel(pool: Any, handshake: Greet) -> Connect:
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

    async def connect() -> Any:
        try:
            return await _connected(found.make_connection())  # type: ignore[no-untyped-call]
        finally:
            for each in sentinel.sentinels:
                await each.aclose(close_connection_pool=True)

    return connect


def _options(options: dict[str, Any], connection_class: type) -> dict[str, Any]:
    """Return those options that the asynchronous connection knows as well."""
    known = {
        name
        for cls in connection_class.__mro__[:-1]
        for name in inspect.signature(vars(cls).get("__init__", cls)).parameters
    }
    kept = {name: value for name, value in options.items() if name in known - _OWN}
    return {**kept, "retry": Retry(NoBackoff(), 0)}
