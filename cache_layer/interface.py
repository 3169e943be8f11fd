"""Namespaced caches: ``ICache`` for async code, ``SyncCache`` for synchronous code."""

from __future__ import annotations

import enum
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.signals import setting_changed

from cache_layer.backends import ForeignCache, ResilientCache
from cache_layer.conf import settings
from cache_layer.keyspace import tag_key

T = TypeVar("T")

_FORBIDDEN: Final = re.compile(r"[:*?\[\]\\^]")


class Forever(enum.Enum):
    """The type of ``FOREVER``."""

    FOREVER = "forever"


#: A ``ttl`` that never ends. ``None`` is the alias's default timeout.
FOREVER: Final = Forever.FOREVER

Ttl = int | float | Forever | None


def as_timeout(ttl: Ttl) -> object:
    """Return Django's timeout for a ttl in seconds, None or ``FOREVER``.

    Raises:
        TypeError: The ttl is something else.
        ValueError: The ttl is a number, but not a finite one.
    """
    if ttl is None:
        return DEFAULT_TIMEOUT
    if ttl is FOREVER:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"A ttl is a number of seconds, None or FOREVER, not {ttl!r}.")
    if not -math.inf < ttl < math.inf:
        raise ValueError(f"A ttl is a finite number of seconds, not {ttl!r}; FOREVER never ends.")
    return ttl


def _as_ttl(milliseconds: int | None) -> int | Forever | None:
    if milliseconds is None:
        return None
    return FOREVER if milliseconds < 0 else -(-milliseconds // 1000)


def validate_namespace(namespace: str) -> str:
    """Return the namespace.

    Raises:
        ValueError: It contains a colon or a glob character, so that its keys could be those of
            another namespace.
    """
    if _FORBIDDEN.search(namespace):
        raise ValueError(
            f"The namespace {namespace!r} contains a colon or a glob character (one of :*?[]^\\)."
        )
    return namespace


# The backend that this context found before: Django's lookup takes longer than everything else in a
# hit. Django, too, has one backend for each context, and closes that backend after a request.
_configuration = object()
_known: ContextVar[tuple[object, ResilientCache] | None] = ContextVar("known", default=None)


class ICache(ABC, Generic[T]):
    """An asynchronous cache of values of one type, under one namespace.

    A ``ttl`` is in seconds; None is the alias's default timeout, ``FOREVER`` never ends, and zero
    or less removes the key and stores nothing. No method raises or waits because Redis is down.
    """

    @abstractmethod
    async def get(self, key: str, default: T | None = None) -> T | None:
        """Return the value of a key, or the default if the key is missing.

        To tell a stored None from a missing key, call ``exists`` or pass a default.
        """

    @abstractmethod
    async def set(self, key: str, value: T, ttl: Ttl = None) -> bool:
        """Store a value; return whether it is stored. A ttl of zero or less stores nothing.

        Raises:
            UnsupportedValueError: The value cannot be stored exactly.
        """

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Delete a key; return whether it held a value."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Return whether a key holds a value, None included."""

    @abstractmethod
    async def increment(self, key: str, amount: int = 1) -> int:
        """Add to an integer in one atomic step and return the sum.

        A missing key starts at the amount, with the default ttl; an existing one keeps its ttl.

        Raises:
            NotAnIntegerError: The value is not an integer; it was not changed.
        """

    @abstractmethod
    async def expire(self, key: str, ttl: Ttl) -> bool:
        """Change the ttl of a key; return whether it held a value."""

    @abstractmethod
    async def ttl(self, key: str) -> int | Forever | None:
        """Return the seconds a key has left, rounded up, or ``FOREVER``; None if it is missing."""

    @abstractmethod
    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """Return the values of the keys that hold one, by key, in one round trip."""

    @abstractmethod
    async def set_many(self, mapping: Mapping[str, T], ttl: Ttl = None) -> bool:
        """Store several values in one round trip; return whether all are stored.

        Raises:
            UnsupportedValueError: One of the values cannot be stored exactly; none is stored.
        """

    @abstractmethod
    async def delete_many(self, keys: Iterable[str]) -> int:
        """Delete keys in one round trip; return how many held a value."""

    @abstractmethod
    async def get_or_set(
        self, key: str, default: T | Callable[[], T | Awaitable[T]], ttl: Ttl = None
    ) -> T:
        """Return the value of a key; if the key is missing, store and return the default.

        A callable default is called, and its result is awaited if it is awaitable. If the key is
        invalidated during the call, the result is returned but not stored.
        """

    @abstractmethod
    async def invalidate_tags(self, *tags: str) -> None:
        """Invalidate the results of decorated functions that have any of the tags, in one command.

        Raises:
            TypeError: A tag is not a string.
            ValueError: A tag is empty.
        """

    @abstractmethod
    async def clear(self) -> int:
        """Delete every key of the namespace and no other; return how many held a value."""


class NamespacedCache(ICache[T]):
    """Implements ``ICache`` over a ``ResilientCache``."""

    def __init__(self, backend: ResilientCache, namespace: str = "") -> None:
        self._backend = backend
        self._namespace = validate_namespace(namespace)
        self._make = backend.operations(namespace)

    async def get(self, key: str, default: T | None = None) -> T | None:
        value: T | None = await self._backend.arun(self._make.get(key, default, None))
        return value

    async def set(self, key: str, value: T, ttl: Ttl = None) -> bool:
        return await self._backend.arun(self._make.set(key, value, as_timeout(ttl), None))

    async def delete(self, key: str) -> bool:
        return await self._backend.arun(self._make.delete(key, None))

    async def exists(self, key: str) -> bool:
        return await self._backend.arun(self._make.has_key(key, None))

    async def increment(self, key: str, amount: int = 1) -> int:
        return await self._backend.arun(self._make.increment(key, amount, None, creates=True))

    async def expire(self, key: str, ttl: Ttl) -> bool:
        return await self._backend.arun(self._make.expire(key, as_timeout(ttl), None))

    async def ttl(self, key: str) -> int | Forever | None:
        return _as_ttl(await self._backend.arun(self._make.remaining(key, None)))

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        return await self._backend.arun(self._make.get_many(keys, None))

    async def set_many(self, mapping: Mapping[str, T], ttl: Ttl = None) -> bool:
        refused = await self._backend.arun(self._make.set_many(mapping, as_timeout(ttl), None))
        return bool(refused == [])

    async def delete_many(self, keys: Iterable[str]) -> int:
        return await self._backend.arun(self._make.delete_many(keys, None))

    async def get_or_set(
        self, key: str, default: T | Callable[[], T | Awaitable[T]], ttl: Ttl = None
    ) -> T:
        return await self._backend.aget_or_set(  # type: ignore[no-any-return]
            key, default, as_timeout(ttl), namespace=self._namespace
        )

    async def invalidate_tags(self, *tags: str) -> None:
        await self._backend.arun(self._make.delete_many(map(tag_key, tags), None))

    async def clear(self) -> int:
        return await self._backend.arun(self._make.clear())


class SyncCache(Generic[T]):
    """The synchronous twin of ``ICache``: the same methods, keys and values."""

    def __init__(self, backend: ResilientCache, namespace: str = "") -> None:
        self._backend = backend
        self._namespace = validate_namespace(namespace)
        self._make = backend.operations(namespace)

    def get(self, key: str, default: T | None = None) -> T | None:
        value: T | None = self._backend.run(self._make.get(key, default, None))
        return value

    def set(self, key: str, value: T, ttl: Ttl = None) -> bool:
        return self._backend.run(self._make.set(key, value, as_timeout(ttl), None))

    def delete(self, key: str) -> bool:
        return self._backend.run(self._make.delete(key, None))

    def exists(self, key: str) -> bool:
        return self._backend.run(self._make.has_key(key, None))

    def increment(self, key: str, amount: int = 1) -> int:
        return self._backend.run(self._make.increment(key, amount, None, creates=True))

    def expire(self, key: str, ttl: Ttl) -> bool:
        return self._backend.run(self._make.expire(key, as_timeout(ttl), None))

    def ttl(self, key: str) -> int | Forever | None:
        return _as_ttl(self._backend.run(self._make.remaining(key, None)))

    def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        return self._backend.run(self._make.get_many(keys, None))

    def set_many(self, mapping: Mapping[str, T], ttl: Ttl = None) -> bool:
        refused = self._backend.run(self._make.set_many(mapping, as_timeout(ttl), None))
        return bool(refused == [])

    def delete_many(self, keys: Iterable[str]) -> int:
        return self._backend.run(self._make.delete_many(keys, None))

    def get_or_set(self, key: str, default: T | Callable[[], T], ttl: Ttl = None) -> T:
        return self._backend.get_or_set(  # type: ignore[no-any-return]
            key, default, as_timeout(ttl), namespace=self._namespace
        )

    def invalidate_tags(self, *tags: str) -> None:
        self._backend.run(self._make.delete_many(map(tag_key, tags), None))

    def clear(self) -> int:
        return self._backend.run(self._make.clear())


for _name in ICache.__abstractmethods__:
    getattr(SyncCache, _name).__doc__ = getattr(ICache, _name).__doc__


async def get_cache(namespace: str = "") -> ICache[Any]:
    """Return the cache of a namespace, over the alias that ``CACHE_LAYER_ALIAS`` names.

    A key ``user:1`` of the namespace ``users`` is ``users:user:1`` in Django's own cache API.

    Raises:
        ValueError: The namespace contains a colon or a glob character.
    """
    return NamespacedCache(resilient_cache(), namespace)


def get_sync_cache(namespace: str = "") -> SyncCache[Any]:
    """Return the synchronous cache of a namespace; see ``get_cache``.

    Raises:
        ValueError: The namespace contains a colon or a glob character.
    """
    return SyncCache(resilient_cache(), namespace)


def resilient_cache() -> ResilientCache:
    """Return the backend of the alias that ``CACHE_LAYER_ALIAS`` names.

    If that is not a ``ResilientCache``, the result wraps it with the methods of one.
    """
    known = _known.get()
    if known is not None and known[0] is _configuration:
        return known[1]
    alias = settings.ALIAS
    configured = caches[alias]
    backend = configured if isinstance(configured, ResilientCache) else ForeignCache(alias)
    _known.set((_configuration, backend))
    return backend


def _look_again(*, setting: str, **kwargs: object) -> None:
    global _configuration
    if setting in {"CACHES", "CACHE_LAYER_ALIAS"}:
        _configuration = object()


setting_changed.connect(_look_again)
