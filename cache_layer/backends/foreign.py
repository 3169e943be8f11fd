"""Runs the operations on any other Django cache, with that cache's guarantees."""

from __future__ import annotations

import datetime as dt
import os
import sys
import threading
import time
from collections import OrderedDict
from typing import Final, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from cache_layer.backends.encoding import NO_VALUE, Codec
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Awaited, Operation
from cache_layer.backends.operations.inputs import Timeout
from cache_layer.backends.operations.scans import DeletePattern
from cache_layer.backends.recovery import Circuit
from cache_layer.backends.resilient import ResilientCache
from cache_layer.backends.store import Store
from cache_layer.exceptions import CacheLayerError, UnsupportedValueError

T = TypeVar("T")

_MISSING: Final = object()
#: Largest number of keys whose expiry is remembered, because Django's API does not tell it.
_MAX_DEADLINES: Final = 10_000

_lock = threading.RLock()
_stores: dict[str, ForeignStore] = {}


class ForeignMemory(MemoryStore):
    """Another Django cache, seen as encoded values by full key.

    Values are stored in that cache's own form, so that its own API reads them. Leases, tags and the
    results of decorated functions, which depend on tags, are stored as bytes.
    """

    def __init__(self, alias: str, codec: Codec) -> None:
        super().__init__(_no_limit, _no_limit)
        self._alias = alias
        self._codec = codec
        self._deadlines: OrderedDict[str, float | None] = OrderedDict()

    @property
    def cache(self) -> BaseCache:
        """The other cache, in the instance of this thread or task."""
        return caches[self._alias]

    def read(self, key: str) -> bytes | None:
        """See ``MemoryStore.read``; a value that cannot be encoded is taken for missing."""
        value = self.cache.get(key, _MISSING)
        if value is _MISSING:
            return None
        if isinstance(value, bytes) and value.startswith(NO_VALUE):
            return value
        try:
            return self._codec.encode(key, value)
        except UnsupportedValueError:
            return None

    def write(self, key: str, data: bytes, milliseconds: int | None) -> None:
        """See ``MemoryStore.write``."""
        self._set(key, data, None if milliseconds is None else milliseconds / 1000)
        self._note(key, milliseconds)

    def replace(self, key: str, data: bytes) -> None:
        """See ``MemoryStore.replace``; where the expiry is unknown, the alias's default begins."""
        if key not in self._deadlines:
            self._set(key, data, DEFAULT_TIMEOUT)
            return
        deadline = self._deadlines[key]
        self._set(key, data, None if deadline is None else max(0.001, deadline - time.monotonic()))

    def drop(self, key: str) -> None:
        """See ``MemoryStore.drop``."""
        self.cache.delete(key)
        self._deadlines.pop(key, None)

    def expire(self, key: str, milliseconds: int | None) -> None:
        """See ``MemoryStore.expire``."""
        self.cache.touch(key, None if milliseconds is None else milliseconds / 1000)
        self._note(key, milliseconds)

    def rename(self, old: str, new: str) -> None:
        """See ``MemoryStore.rename``."""
        data, left = self.read(old), self.remaining(old)
        if data is not None:
            self.write(new, data, left)
        self.drop(old)

    def remaining(self, key: str) -> int | None:
        """See ``MemoryStore.remaining``; None also where the expiry is unknown."""
        deadline = self._deadlines.get(key)
        return None if deadline is None else max(1, round((deadline - time.monotonic()) * 1000))

    def listed(self) -> list[str]:
        """Raise: Django's API does not list keys.

        Raises:
            CacheLayerError: Always.
        """
        raise CacheLayerError(
            f"A {type(self.cache).__name__} cannot list its keys. "
            '"cache_layer.backends.ResilientCache" can.'
        )

    def clear(self) -> None:
        """See ``MemoryStore.clear``."""
        self.cache.clear()
        self._deadlines.clear()

    def after_fork(self) -> None:
        """See ``MemoryStore.after_fork``; the content of the cache is not touched."""
        self.lock = threading.RLock()

    def _set(self, key: str, data: bytes, timeout: Timeout) -> None:
        value = data if data.startswith(NO_VALUE) else self._codec.decode(data)
        self.cache.set(key, value, timeout)

    def _note(self, key: str, milliseconds: int | None) -> None:
        self._deadlines.pop(key, None)
        while len(self._deadlines) >= _MAX_DEADLINES:
            self._deadlines.popitem(last=False)
        self._deadlines[key] = (
            None if milliseconds is None else time.monotonic() + milliseconds / 1000
        )


class ForeignStore(Store):
    """Answers operations from another Django cache; they are atomic within this process."""

    def __init__(self, alias: str) -> None:
        codec = Codec({})
        memory = ForeignMemory(alias, codec)
        super().__init__(codec, memory, Circuit(memory.lock, has_redis=False))
        self._foreign = memory
        self._since = dt.datetime.now(dt.UTC)

    def run(self, operation: Operation[T]) -> T:
        """See ``Store.run``; deleting by pattern deletes everything, for want of a list of keys."""
        with self.memory.lock:
            if isinstance(operation, DeletePattern):
                self.memory.clear()
                return 0  # type: ignore[return-value]
            return operation.in_memory(self.memory)

    def arun(self, operation: Operation[T]) -> Awaited[T]:
        """See ``run()``; on a thread, where the cache may wait for something."""
        if isinstance(self._foreign.cache, DummyCache | LocMemCache):
            return self._run_at_once(operation)
        return sync_to_async(self.run, thread_sensitive=True)(operation)

    def describe(self) -> dict[str, object]:
        """See ``Store.describe``."""
        cls = type(self._foreign.cache)
        reason = f"the alias has the backend {cls.__module__}.{cls.__qualname__}"
        return {"state": "memory", "since": self._since, "reason": reason}

    async def _run_at_once(self, operation: Operation[T]) -> T:
        return self.run(operation)


class ForeignCache(ResilientCache):
    """The API of ``ResilientCache`` over the cache of an alias that has another backend.

    Args:
        alias: The name in ``CACHES``.
    """

    def __init__(self, alias: str) -> None:
        cache = caches[alias]
        params: dict[str, object] = {"TIMEOUT": cache.default_timeout, "KEY_FUNCTION": _same_key}
        super().__init__("", params)
        self._alias = alias

    @property
    def store(self) -> Store:
        """See ``ResilientCache.store``."""
        with _lock:
            return _stores.get(self._alias) or _stores.setdefault(
                self._alias, ForeignStore(self._alias)
            )

    def validate_key(self, key: str) -> None:
        """Do nothing: the other backend validates the key that it makes."""


def _no_limit() -> int:
    # The other cache has its own.
    return sys.maxsize


def _same_key(key: str, key_prefix: str, version: int) -> str:
    return str(key)


def _after_fork() -> None:
    # Another thread may have held a lock while the other cache answered.
    global _lock
    _lock = threading.RLock()
    for store in _stores.values():
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)
