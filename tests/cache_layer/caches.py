"""The backend over every store, for tests of it."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from cache_layer.backends import (
    MISSING,
    ExpirationPolicy,
    Lease,
    Operation,
    ReadResult,
    ResilientCache,
    ResultKey,
)
from tests import services


def make_cache(location: Any = "", **params: Any) -> ResilientCache:
    """A cache under a prefix of its own."""
    params.setdefault("KEY_PREFIX", f"test-{uuid.uuid4().hex}")
    return ResilientCache(location, params)


class Awaited:
    """Calls the awaited twin of every method."""

    def __init__(self, cache: ResilientCache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return async_to_sync(getattr(self._cache, f"a{name}"))


class Leases:
    """Leases of a cache's keys, as ``get_or_set`` takes them, step by step."""

    def __init__(
        self, cache: ResilientCache, run: Callable[[Operation[Any]], Any] | None = None
    ) -> None:
        self._cache = cache
        self._run = run or cache.run

    def claim(self, key: str, namespace: str = "") -> Any | Lease:
        factory = self._cache.operations(namespace)
        result = ResultKey(factory.key(key))
        read = ReadResult(factory.context, result, 0)
        found = self._run(read)
        if found is MISSING:
            results = factory.results(ExpirationPolicy())
            found = self._run(results.claim(result, read.unreadable))
        return found

    def fill(
        self, key: str, value: object, lease: Lease, ttl: float | None = 300, namespace: str = ""
    ) -> bool:
        factory = self._cache.operations(namespace)
        result = ResultKey(factory.key(key))
        return self._run(factory.results(ExpirationPolicy(ttl)).fill(result, value, lease))

    def release(self, key: str, lease: Lease) -> bool:
        factory = self._cache.operations()
        result = ResultKey(factory.key(key))
        return self._run(factory.results(ExpirationPolicy()).release(result, lease))


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds, at most as long as a broken machine would need."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def state(cache: ResilientCache) -> str:
    return str(cache.store.describe()["state"])


def close(cache: ResilientCache) -> None:
    """End what the alias runs and holds in this process."""
    cache.store.close()


def is_leased(cache: ResilientCache, key: str) -> bool:
    """Tell whether a lease was left at a key without a value; one stands there afterwards."""
    return not Leases(cache).claim(key).owner


class Stores:
    """Mix-in: every test runs over memory, Redis and a Redis that is not there."""

    @pytest.fixture(params=["memory", "redis", "dead redis"])
    def backend(self, request: pytest.FixtureRequest) -> Iterator[ResilientCache]:
        if request.param == "memory":
            location = ""
        elif request.param == "redis":
            location = request.getfixturevalue("redis_url")
        else:
            location = f"redis://127.0.0.1:{services.free_port()}/0"
        backend = make_cache(location)
        backend.clear()
        assert state(backend) == ("redis" if request.param == "redis" else "memory")
        yield backend
        backend.clear()
        if request.param == "dead redis":
            backend.store.close()

    def neighbourhood(self, backend: ResilientCache) -> Any:
        """The LOCATION at which other aliases share the backend's Redis."""
        return backend._location


class Left:
    """What can be left of a lifetime by now: it began after this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def of(self, seconds: int) -> range:
        """Return the whole seconds that may be left, by the test's own clock."""
        passed = math.ceil(time.monotonic() - self._began)
        return range(seconds - passed, seconds + 1)
