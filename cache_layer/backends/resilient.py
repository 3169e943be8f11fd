# ruff: noqa: ASYNC109 - Django's cache API calls a value's time to live its timeout
"""The Django cache backend: Redis while it can be used, memory while it cannot."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
    default_key_func,
)
from django.utils.functional import cached_property

from cache_layer.backends.client_api import ClientApi
from cache_layer.backends.get_or_set import GetOrSet
from cache_layer.backends.near.decoded import NOT_FOUND, DecodedValues
from cache_layer.backends.operations.base import Operation, OperationContext
from cache_layer.backends.operations.factory import OperationFactory, ResultOperationFactory
from cache_layer.backends.shared_metrics import flush_when_due
from cache_layer.backends.state import MemoryState, state_for
from cache_layer.keyspace import Keyspace

T = TypeVar("T")

#: Namespaces and functions of which the operations are kept: a project may make them at will.
MOST_KEPT: Final = 500

_ODD_CHARACTER: Final = re.compile(r"[\x00-\x20\x7f]")

_KEY_MAKING: Final = frozenset({"key_func", "key_prefix", "version"})
_KEPT: Final = ("keyspace", "state", "context", "_decoded", "_operations")


class ResilientCache(ClientApi, GetOrSet, BaseCache):
    """Django's cache API, synchronous and awaited, that neither raises nor waits for a dead Redis.

    ``LOCATION`` and ``OPTIONS`` are django-redis's; without a LOCATION it is memory only. Beyond
    Django's API: ``ttl``, ``expire``, ``keys``, ``iter_keys`` and ``delete_pattern`` as
    django-redis has them. ``get_or_set`` never stores a value after an invalidation that was
    computed before it.

    A ``timeout`` is in seconds; None never expires, zero or less stores nothing.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location
        self._params = params
        self._namespaces: dict[str, OperationFactory] = {}
        #: What decorated functions work with, by function.
        self.result_factories: dict[Any, ResultOperationFactory] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Django reads these anew for each key; here what they lead to is kept.
        super().__setattr__(name, value)
        if name in _KEY_MAKING and "result_factories" in self.__dict__:
            for kept in _KEPT:
                self.__dict__.pop(kept, None)
            self._namespaces.clear()
            self.result_factories.clear()
            self.state.allow_other_prefixes()

    def validate_key(self, key: str) -> None:
        """Warn of the same keys as Django does, without looking at every character in Python."""
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or self.is_odd(key):
            super().validate_key(key)

    def validate_keys(self, keys: Sequence[str]) -> None:
        """Do the same for many keys."""
        if (
            type(self).validate_key is not ResilientCache.validate_key
            or self.is_odd("".join(keys))
            or max(map(len, keys), default=0) > MEMCACHE_MAX_KEY_LENGTH
        ):
            for key in keys:
                self.validate_key(key)

    @staticmethod
    def is_odd(text: str) -> bool:
        """Return whether a key with this in it is one that Django warns of."""
        # The first two are quick, and true of nearly all keys.
        if text.isprintable() and " " not in text:
            return False
        return _ODD_CHARACTER.search(text) is not None

    @cached_property
    def state(self) -> MemoryState:
        """What all instances of the alias in this process share."""
        return state_for(self._location, self._params, self, self.keyspace)

    @cached_property
    def keyspace(self) -> Keyspace | None:
        """All keys of the alias; None when the KEY_FUNCTION hides them."""
        return Keyspace.of(self.key_func, self.key_prefix, self.version)

    @cached_property
    def context(self) -> OperationContext:
        """What operations without a namespace are given."""
        return self.context_of("")

    def context_of(self, namespace: str, near: bool | None = None) -> OperationContext:
        """Return what operations under a namespace are given.

        ``near``: whether what they read is kept in this process; None: as the alias has it.
        """
        cls = type(self)
        steady = (
            self.key_func is default_key_func
            and cls.make_key is BaseCache.make_key
            and cls.make_and_validate_key is BaseCache.make_and_validate_key
            # They are plain attributes, unless a class makes them anew for each caller.
            and not any(hasattr(cls, name) for name in _KEY_MAKING)
        )
        # Elsewhere one name may stand for several keys, of which the keyspace covers some.
        near = steady and self.keyspace is not None and self.state.keeps(namespace, near)
        return OperationContext(namespace, self.state.codec, self.keyspace, steady, near)

    @property
    def single_prefix(self) -> bool:
        """Whether every backend of the alias makes the same keys, as long as nobody changes it.

        One of a project's own class may choose a prefix when it is made, which Django does for
        each thread and task.
        """
        return type(self).__init__ is ResilientCache.__init__

    @cached_property
    def _decoded(self) -> DecodedValues | None:
        return self.state.decoded(self.context, (self.key_func, self.key_prefix, self.version))

    @cached_property
    def _operations(self) -> OperationFactory:
        return self.operations()

    def operations(self, namespace: str = "") -> OperationFactory:
        """Return what makes operations on the keys of a namespace, for ``run`` and ``arun``."""
        made = self._namespaces.get(namespace)
        if made is None:
            if len(self._namespaces) >= MOST_KEPT:
                self._namespaces.clear()
            made = self._namespaces[namespace] = OperationFactory(self, namespace)
        return made

    def run(self, operation: Operation[T]) -> T:
        """Do an operation, on Redis or in memory."""
        return self.state.run(operation)

    @markcoroutinefunction
    def arun(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """See ``run()``."""
        return self.state.arun(operation)

    def get(
        self, key: Any, default: Any = None, version: int | None = None, client: Any = None
    ) -> Any:
        """Return the value of a key, or the default.

        ``client``, here and elsewhere: redis-py's client or pipeline to do it with, as in
        django-redis; neither memory nor the near cache are asked then.
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

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """See ``get()``."""
        decoded = self._decoded
        if decoded is None or version is not None or type(key) is not str:
            return await self.state.arun(self._operations.get(key, default, version))
        value = decoded.get(key)
        if value is NOT_FOUND:
            read = self._operations.get(key, default, version)
            value = await self.state.arun(read)
            decoded.learn(key, read)
        return value

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """Store a value; return whether it is stored.

        Args:
            key: any text.
            value: what the serializer can store.
            timeout: seconds to live.
            version: that of the key.
            client: a client or pipeline of redis-py's to store it with.
            nx: store it only where there is no value; memory never answers for this.
            xx: store it only where there is a value.

        Raises:
            UnsupportedValueError: the serializer cannot store it exactly.
            CacheUnavailableError: ``nx`` is asked for, and Redis cannot be used.
        """
        if client is not None:
            return self.client.set(key, value, timeout, version, client, nx, xx)
        if nx or xx:
            return self.run(self._set_operation(key, value, timeout, version, nx, xx))
        return self.run(self._operations.set(key, value, timeout, version))

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """See ``set()``."""
        if nx or xx:
            return await self.arun(self._set_operation(key, value, timeout, version, nx, xx))
        return await self.arun(self._operations.set(key, value, timeout, version))

    def add(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: Any = None,
    ) -> bool:
        """Store a value where there is none; return whether there was none."""
        if client is not None:
            done: bool = self.client.add(key, value, timeout, version, client)
            return done
        return self.run(self._operations.add(key, value, timeout, version))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See ``add()``."""
        return await self.arun(self._operations.add(key, value, timeout, version))

    def delete(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Delete a key; return whether it held a value."""
        if client is not None:
            done: bool = self.client.delete(key, version, client=client)
            return done
        return self.run(self._operations.delete(key, version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """See ``delete()``."""
        return await self.arun(self._operations.delete(key, version))

    def touch(
        self,
        key: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: Any = None,
    ) -> bool:
        """Change the expiry of a key; return whether it held a value."""
        if client is not None:
            done: bool = self.client.touch(key, timeout, version, client)
            return done
        return self.run(self._operations.expire(key, timeout, version))

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See ``touch()``."""
        return await self.arun(self._operations.expire(key, timeout, version))

    def has_key(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Return whether a key holds a value, be it None."""
        if client is not None:
            done: bool = self.client.has_key(key, version, client)
            return done
        return self.run(self._operations.has_key(key, version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """See ``has_key()``."""
        return await self.arun(self._operations.has_key(key, version))

    def incr(
        self,
        key: Any,
        delta: int = 1,
        version: int | None = None,
        client: Any = None,
        ignore_key_check: bool = False,
    ) -> int:
        """Add to an integer, atomically.

        Args:
            key: what holds the integer.
            delta: what to add.
            version: that of the key.
            client: see ``get()``.
            ignore_key_check: whether a missing key is made, with the default timeout.

        Raises:
            ValueError: there is no such key.
            NotAnIntegerError: the value is not an integer; it stays as it is.
        """
        if client is not None:
            # A pipeline's answer is the pipeline.
            number: int = self.client.incr(key, delta, version, client, ignore_key_check)
            return number
        return self.run(self._operations.increment(key, delta, version, creates=ignore_key_check))

    async def aincr(
        self,
        key: Any,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """See ``incr()``."""
        return await self.arun(
            self._operations.increment(key, delta, version, creates=ignore_key_check)
        )

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See ``decr()``."""
        return await self.aincr(key, -delta, version=version)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return those of the keys that hold a value, with it, in one round trip."""
        return self.run(self._operations.get_many(keys, version))

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """See ``get_many()``."""
        return await self.arun(self._operations.get_many(keys, version))

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Store several values in one round trip; return the keys that could not be stored.

        :raises UnsupportedValueError: the serializer cannot store one exactly; none is stored.
        """
        refused = self.run(self._operations.set_many(data, timeout, version))
        return self._names(refused, data, version)

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """See ``set_many()``."""
        refused = await self.arun(self._operations.set_many(data, timeout, version))
        return self._names(refused, data, version)

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> Any:
        """Delete keys in one round trip; return how many held a value."""
        return self.run(self._operations.delete_many(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> Any:
        """See ``delete_many()``."""
        return await self.arun(self._operations.delete_many(keys, version))

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move a value, with its expiry, to another version; return that version.

        :raises ValueError: there is no such key.
        """
        version = self.version if version is None else version
        moved = self.run(self._operations.rename(key, version, delta))
        return _moved(moved, key, version + delta)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See ``incr_version()``."""
        version = self.version if version is None else version
        moved = await self.arun(self._operations.rename(key, version, delta))
        return _moved(moved, key, version + delta)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See ``decr_version()``."""
        return await self.aincr_version(key, -delta, version)

    def clear(self) -> None:
        """Delete every key of this alias, in all versions, and nobody else's.

        :raises CacheLayerError: the KEY_FUNCTION hides which keys are its own.
        """
        self.run(self._operations.clear())

    async def aclear(self) -> None:
        """See ``clear()``."""
        await self.arun(self._operations.clear())

    def close(self, **kwargs: Any) -> None:
        """Called after each request: counters are added to all processes'.

        Connections stay, unless django-redis's CLOSE_CONNECTION asks for their end.
        """
        if self._bound_client is not None:
            self.client.close()
        flush_when_due(self)

    async def aclose(self, **kwargs: Any) -> None:
        """See ``close()``."""
        await sync_to_async(flush_when_due)(self)

    def _names(self, refused: Any, data: Mapping[Any, Any], version: int | None) -> list[Any]:
        if not isinstance(refused, list) or not refused:
            return []
        return [key for key in data if self.make_key(key, version) in refused]


def _moved(moved: bool, key: Any, version: int) -> int:
    if not moved:
        raise ValueError(f"Key {key!r} not found")
    return version
