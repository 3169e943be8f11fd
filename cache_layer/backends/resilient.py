# ruff: noqa: ASYNC109 - Django's cache API calls a value's time to live its timeout
"""The Django cache backend: it uses Redis, and memory while Redis cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils.functional import cached_property

from cache_layer.aliases import Value
from cache_layer.backends.client_api import ClientApi
from cache_layer.backends.get_or_set import GetOrSet
from cache_layer.backends.near.decoded import NOT_FOUND
from cache_layer.backends.operations.batches import Values
from cache_layer.backends.operations.inputs import Key
from cache_layer.backends.registry import store_for
from cache_layer.backends.shared_metrics import flush_when_due
from cache_layer.backends.store import Store


class ResilientCache(ClientApi, GetOrSet):
    """Django's cache API, synchronous and awaited, which does not raise or wait during an outage.

    ``LOCATION`` and ``OPTIONS`` are django-redis's; without a LOCATION it is memory only. Beyond
    Django's API it has ``ttl``, ``expire``, ``keys``, ``iter_keys`` and ``delete_pattern`` of
    django-redis. ``get_or_set`` never stores a value whose computation began before an
    invalidation.

    A ``timeout`` is in seconds; None never expires, zero or less stores nothing.
    """

    @cached_property
    def store(self) -> Store:
        """The store that all instances of the alias in this process share."""
        return store_for(self._location, self._params, self, sender=ResilientCache)

    def get(
        self, key: object, default: object = None, version: int | None = None, client: object = None
    ) -> Value:
        """Return the value of a key, or the default.

        ``client``, here and in other methods, is a client or pipeline of redis-py to use, as in
        django-redis; the call then uses neither memory nor the near cache.
        """
        if client is not None:
            return self.client.get(key, default, version, client)
        decoded = self._decoded
        if decoded is None or version is not None or type(key) is not str:
            return self.run(self._operations.get(key, default, version))
        value = decoded.get(key)
        if value is NOT_FOUND:
            read = self._operations.get(key, default, version)
            value = self.run(read)
            decoded.learn(key, read)
        return value

    async def aget(self, key: object, default: object = None, version: int | None = None) -> Value:
        """See ``get()``."""
        decoded = self._decoded
        if decoded is None or version is not None or type(key) is not str:
            return await self.store.arun(self._operations.get(key, default, version))
        value = decoded.get(key)
        if value is NOT_FOUND:
            read = self._operations.get(key, default, version)
            value = await self.store.arun(read)
            decoded.learn(key, read)
        return value

    def set(
        self,
        key: object,
        value: object,
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: object = None,
        nx: bool = False,
        xx: bool = False,
    ) -> Value:
        """Store a value; return whether it is stored.

        Args:
            key: Any text.
            value: A value that the serializer can store.
            timeout: Seconds to live.
            version: The version of the key.
            client: A client or pipeline of redis-py to use.
            nx: Store only if the key is missing; memory never answers such a call.
            xx: Store only if the key holds a value.

        Raises:
            UnsupportedValueError: The serializer cannot store the value exactly.
            CacheUnavailableError: ``nx`` is True, and Redis cannot be used.
        """
        if client is not None:
            return self.client.set(key, value, timeout, version, client, nx, xx)
        if nx or xx:
            return self.run(self._set_operation(key, value, timeout, version, nx, xx))
        return self.run(self._operations.set(key, value, timeout, version))

    async def aset(
        self,
        key: object,
        value: object,
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        xx: bool = False,
    ) -> Value:
        """See ``set()``."""
        if nx or xx:
            return await self.arun(self._set_operation(key, value, timeout, version, nx, xx))
        return await self.arun(self._operations.set(key, value, timeout, version))

    def add(
        self,
        key: object,
        value: object,
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: object = None,
    ) -> bool:
        """Store a value where there is none; return whether there was none."""
        if client is not None:
            done: bool = self.client.add(key, value, timeout, version, client)
            return done
        return self.run(self._operations.add(key, value, timeout, version))

    async def aadd(
        self,
        key: object,
        value: object,
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """See ``add()``."""
        return await self.arun(self._operations.add(key, value, timeout, version))

    def delete(self, key: object, version: int | None = None, client: object = None) -> bool:
        """Delete a key; return whether it held a value."""
        if client is not None:
            done: bool = self.client.delete(key, version, client=client)
            return done
        return self.run(self._operations.delete(key, version))

    async def adelete(self, key: object, version: int | None = None) -> bool:
        """See ``delete()``."""
        return await self.arun(self._operations.delete(key, version))

    def touch(
        self,
        key: object,
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: object = None,
    ) -> bool:
        """Change the expiry of a key; return whether it held a value."""
        if client is not None:
            done: bool = self.client.touch(key, timeout, version, client)
            return done
        return self.run(self._operations.expire(key, timeout, version))

    async def atouch(
        self, key: object, timeout: object = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See ``touch()``."""
        return await self.arun(self._operations.expire(key, timeout, version))

    def has_key(self, key: object, version: int | None = None, client: object = None) -> bool:
        """Return whether a key holds a value, be it None."""
        if client is not None:
            done: bool = self.client.has_key(key, version, client)
            return done
        return self.run(self._operations.has_key(key, version))

    async def ahas_key(self, key: object, version: int | None = None) -> bool:
        """See ``has_key()``."""
        return await self.arun(self._operations.has_key(key, version))

    def incr(
        self,
        key: object,
        delta: int = 1,
        version: int | None = None,
        client: object = None,
        ignore_key_check: bool = False,
    ) -> int:
        """Add to an integer, atomically.

        Args:
            key: The key of the integer.
            delta: The number to add.
            version: The version of the key.
            client: See ``get()``.
            ignore_key_check: Whether to create a missing key, with the default timeout.

        Raises:
            ValueError: The key is missing.
            NotAnIntegerError: The value is not an integer; it was not changed.
        """
        if client is not None:
            # A pipeline's answer is the pipeline.
            number: int = self.client.incr(key, delta, version, client, ignore_key_check)
            return number
        return self.run(self._operations.increment(key, delta, version, creates=ignore_key_check))

    async def aincr(
        self,
        key: object,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """See ``incr()``."""
        return await self.arun(
            self._operations.increment(key, delta, version, creates=ignore_key_check)
        )

    async def adecr(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """See ``decr()``."""
        return await self.aincr(key, -delta, version=version)

    def get_many(self, keys: Iterable[object], version: int | None = None) -> Values:
        """Return the values of the keys that hold one, by key, in one round trip."""
        return self.run(self._operations.get_many(keys, version))

    async def aget_many(self, keys: Iterable[object], version: int | None = None) -> Values:
        """See ``get_many()``."""
        return await self.arun(self._operations.get_many(keys, version))

    def set_many(
        self,
        data: Mapping[object, object],
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Key]:
        """Store several values in one round trip; return the keys that were not stored: none.

        Raises:
            UnsupportedValueError: The serializer cannot store one exactly; none is stored.
        """
        self.run(self._operations.set_many(data, timeout, version))
        return []

    async def aset_many(
        self,
        data: Mapping[object, object],
        timeout: object = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Key]:
        """See ``set_many()``."""
        await self.arun(self._operations.set_many(data, timeout, version))
        return []

    def delete_many(self, keys: Iterable[object], version: int | None = None) -> Any:
        """Delete keys in one round trip; return how many held a value, None if none is given."""
        every = list(keys)
        return self.run(self._operations.delete_many(every, version)) if every else None

    async def adelete_many(self, keys: Iterable[object], version: int | None = None) -> Any:
        """See ``delete_many()``."""
        every = list(keys)
        return await self.arun(self._operations.delete_many(every, version)) if every else None

    def incr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """Move a value, with its expiry, to another version; return that version.

        Raises:
            ValueError: There is no such key.
        """
        version = self.version if version is None else version
        moved = self.run(self._operations.rename(key, version, delta))
        return _moved(moved, key, version + delta)

    async def aincr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """See ``incr_version()``."""
        version = self.version if version is None else version
        moved = await self.arun(self._operations.rename(key, version, delta))
        return _moved(moved, key, version + delta)

    async def adecr_version(self, key: object, delta: int = 1, version: int | None = None) -> int:
        """See ``decr_version()``."""
        return await self.aincr_version(key, -delta, version)

    def clear(self) -> None:
        """Delete every key of this alias, in all versions, and no other key.

        Raises:
            CacheLayerError: The KEY_FUNCTION hides which keys are its own.
        """
        self.run(self._operations.clear())

    async def aclear(self) -> None:
        """See ``clear()``."""
        await self.arun(self._operations.clear())

    def close(self, **kwargs: object) -> None:
        """Add the counters to those of all processes; Django calls this after each request.

        Connections stay open, unless django-redis's CLOSE_CONNECTION is set.
        """
        if self._bound_client is not None:
            self.client.close()
        flush_when_due(self)

    async def aclose(self, **kwargs: object) -> None:
        """See ``close()``."""
        await sync_to_async(flush_when_due)(self)


def _moved(moved: bool, key: object, version: int) -> int:
    if not moved:
        raise ValueError(f"Key {key!r} not found")
    return version
