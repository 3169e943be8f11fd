# ruff: noqa: ASYNC109 - Django's cache API calls a value's time to live its timeout
"""The methods of django-redis's backend beyond Django's API, synchronous and awaited."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.backends.data_structures import DataStructures
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.conditional import AddOnRedis, Persist, Replace
from cache_layer.backends.operations.scans import STEP
from cache_layer.backends.operations.single import Add, Set

if TYPE_CHECKING:
    from redis.asyncio.lock import Lock as AsyncLock
    from redis.lock import Lock

    from cache_layer.backends.django_redis_client import BoundClient, DjangoRedisClient
    from cache_layer.backends.redis.internals import Client


class ClientApi(DataStructures):
    """The part of ``ResilientCache`` that code written for django-redis calls.

    ``version`` is the version of the keys; None is that of the alias. ``itersize`` is the number of
    keys that Redis examines in one step.
    """

    _bound_client: BoundClient | None = None

    @property
    def client(self) -> DjangoRedisClient:
        """The client of django-redis for this backend; ``get_redis_connection()`` uses it.

        It speaks to Redis over redis-py's own connections and raises what redis-py raises.

        Raises:
            CacheUnavailableError: The alias has no LOCATION.
        """
        return self.bound_client.raw

    def get_client(self, write: bool = True) -> Client:
        """Return redis-py's client; see ``client``."""
        return self.client.get_client(write)

    @property
    def bound_client(self) -> BoundClient:
        """See ``DataStructures.bound_client``."""
        transport = self.store.transport
        if transport is None:
            raise self.unavailable("A client of Redis")
        shared = transport.client
        bound = self._bound_client
        if bound is None or bound.shared is not shared:
            from cache_layer.backends.django_redis_client import BoundClient

            bound = self._bound_client = BoundClient(self, shared)
        return bound

    def lock(
        self,
        key: str,
        version: int | None = None,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        thread_local: bool = True,
    ) -> Lock:
        """Return redis-py's lock of a key.

        Args:
            key: The key of the lock; it must hold no value.
            version: The version of the key.
            timeout: Seconds after which Redis drops the lock. None never drops it, even if its
                holder died.
            sleep: Seconds between two attempts.
            blocking: Whether to wait for another holder.
            blocking_timeout: Seconds to wait for another holder; None waits for ever.
            thread_local: Whether only the thread that acquired it may release it.

        Raises:
            CacheUnavailableError: Redis cannot be used; acquiring and releasing raise it, not this
                call.
        """
        lock: Lock = self.bound_client.routed.lock(
            key, version, timeout, sleep, blocking, blocking_timeout, thread_local=thread_local
        )
        return lock

    def alock(
        self,
        key: str,
        version: int | None = None,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        thread_local: bool = True,
    ) -> AsyncLock:
        """Return redis-py's awaited lock; see ``lock()``. It is used with ``async with``."""
        bound = self.bound_client
        return bound.asynchronous.lock(
            bound.raw.make_key(key, version=version),
            timeout=timeout,
            sleep=sleep,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            thread_local=thread_local,
        )

    def ttl(self, key: object, version: int | None = None) -> int | None:
        """Return the seconds a key has left, rounded up; None if it never expires, 0 if missing."""
        return _seconds(self.pttl(key, version))

    async def attl(self, key: object, version: int | None = None) -> int | None:
        """See ``ttl()``."""
        return _seconds(await self.apttl(key, version))

    def pttl(self, key: object, version: int | None = None) -> int | None:
        """Return the milliseconds a key has left; None if it never expires, 0 if it is missing."""
        return _left(self.run(self.operations().remaining(key, version)))

    async def apttl(self, key: object, version: int | None = None) -> int | None:
        """See ``pttl()``."""
        return _left(await self.arun(self.operations().remaining(key, version)))

    def persist(self, key: object, version: int | None = None) -> bool:
        """Remove the expiry of a key; return whether it had one."""
        return self.run(self._persist(key, version))

    async def apersist(self, key: object, version: int | None = None) -> bool:
        """See ``persist()``."""
        return await self.arun(self._persist(key, version))

    def expire(
        self,
        key: object,
        timeout: float | dt.timedelta | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Let a key expire in ``timeout`` seconds; return whether it held a value."""
        return self.run(self.operations().expire(key, _in_seconds(timeout), version))

    async def aexpire(
        self,
        key: object,
        timeout: float | dt.timedelta | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """See ``expire()``."""
        return await self.arun(self.operations().expire(key, _in_seconds(timeout), version))

    def pexpire(
        self,
        key: object,
        timeout: float | dt.timedelta | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Let a key expire in ``timeout`` milliseconds; return whether it held a value."""
        return self.expire(key, _from_milliseconds(timeout), version)

    async def apexpire(
        self,
        key: object,
        timeout: float | dt.timedelta | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """See ``pexpire()``."""
        return await self.aexpire(key, _from_milliseconds(timeout), version)

    def expire_at(self, key: object, when: dt.datetime | float, version: int | None = None) -> bool:
        """Let a key expire at a time or Unix time in seconds; return whether it held a value."""
        return self.expire(key, _until(when), version)

    async def aexpire_at(
        self, key: object, when: dt.datetime | float, version: int | None = None
    ) -> bool:
        """See ``expire_at()``."""
        return await self.aexpire(key, _until(when), version)

    def pexpire_at(
        self, key: object, when: dt.datetime | float, version: int | None = None
    ) -> bool:
        """Let a key expire at a Unix time in milliseconds; return whether it held a value."""
        return self.expire(key, _until(when, 1000), version)

    async def apexpire_at(
        self, key: object, when: dt.datetime | float, version: int | None = None
    ) -> bool:
        """See ``pexpire_at()``."""
        return await self.aexpire(key, _until(when, 1000), version)

    def keys(self, search: str = "*", version: int | None = None) -> list[str]:
        """Return the keys that match a pattern, without the prefix, in no order.

        Raises:
            CacheLayerError: The KEY_FUNCTION hides them.
        """
        operations = self.operations()
        found = self.run(operations.scan(search, version, STEP))
        return operations.strip(found, version)

    async def akeys(self, search: str = "*", version: int | None = None) -> list[str]:
        """See ``keys()``."""
        operations = self.operations()
        found = await self.arun(operations.scan(search, version, STEP))
        return operations.strip(found, version)

    def iter_keys(
        self, search: str = "*", itersize: int | None = None, *, version: int | None = None
    ) -> Iterator[str]:
        """Iterate over the keys that match a pattern, one step of a scan at a time.

        As in Redis itself, a key may come twice.
        """
        operations = self.operations()
        cursor = 0
        while True:
            page = operations.scan_page(search, version, _itersize(itersize), cursor)
            cursor, found = self.run(page)
            yield from operations.strip(found, version)
            if not cursor:
                return

    async def aiter_keys(
        self, search: str = "*", itersize: int | None = None, *, version: int | None = None
    ) -> AsyncIterator[str]:
        """See ``iter_keys()``."""
        operations = self.operations()
        cursor = 0
        while True:
            page = operations.scan_page(search, version, _itersize(itersize), cursor)
            cursor, found = await self.arun(page)
            for key in operations.strip(found, version):
                yield key
            if not cursor:
                return

    def delete_pattern(
        self, pattern: str, version: int | None = None, *, itersize: int | None = None
    ) -> int:
        """Delete the keys that match a pattern; return how many held a value.

        Raises:
            CacheLayerError: The KEY_FUNCTION hides them.
        """
        return self.run(self.operations().delete_pattern(pattern, version, _itersize(itersize)))

    async def adelete_pattern(
        self, pattern: str, version: int | None = None, *, itersize: int | None = None
    ) -> int:
        """See ``delete_pattern()``."""
        return await self.arun(
            self.operations().delete_pattern(pattern, version, _itersize(itersize))
        )

    def _set_operation(
        self, key: object, value: object, timeout: object, version: int | None, nx: bool, xx: bool
    ) -> Operation[bool]:
        """Return the operation that stores a value, only if there is none (nx) or one (xx) already.

        Raises:
            ValueError: Both are True.
        """
        if nx and xx:
            raise ValueError("nx and xx exclude each other: choose one.")
        if nx:
            added = self.operations().add(key, value, timeout, version)
            return AddOnRedis(added, self.unavailable) if isinstance(added, Add) else added
        stored = self.operations().set(key, value, timeout, version)
        if xx and isinstance(stored, Set):
            return Replace(stored.context, stored.key, stored.data, stored.milliseconds)
        return stored

    def _persist(self, key: object, version: int | None) -> Operation[bool]:
        operations = self.operations()
        return Persist(operations.context, operations.key(key, version))


def _itersize(itersize: int | None) -> int:
    return itersize or int(getattr(settings, "DJANGO_REDIS_SCAN_ITERSIZE", STEP))


def _left(milliseconds: int | None) -> int | None:
    if milliseconds is None:
        return 0
    return None if milliseconds < 0 else milliseconds


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else -(-milliseconds // 1000)


def _in_seconds(timeout: object) -> Any:
    return timeout.total_seconds() if isinstance(timeout, dt.timedelta) else timeout


def _from_milliseconds(timeout: Any) -> Any:
    if timeout is None or timeout is DEFAULT_TIMEOUT or isinstance(timeout, dt.timedelta):
        return timeout
    return timeout / 1000


def _until(when: dt.datetime | float, unit: int = 1) -> float:
    """Return the seconds until a time; ``unit`` is the number of its units in a second."""
    moment = when.timestamp() if isinstance(when, dt.datetime) else when / unit
    return moment - time.time()
