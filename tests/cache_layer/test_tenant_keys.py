"""A KEY_FUNCTION that depends on the tenant of a request: no tenant touches another's keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import close, make_cache, state, wait_for
from tests.services import RedisServer

_tenant = "a"


def by_tenant(key: str, prefix: str, version: int) -> str:
    return f"{_tenant}:{prefix}:{version}:{key}"


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    cache = make_cache(redis_server.url, KEY_FUNCTION=by_tenant)
    yield cache
    close(cache)


def be(tenant: str) -> None:
    global _tenant
    _tenant = tenant


def test_a_clear_deletes_the_keys_of_the_tenant_who_asks(face: Any) -> None:
    for tenant in "ab":
        be(tenant)
        face.set("k", tenant)
    face.clear()
    assert face.get("k") is None
    be("a")
    assert face.get("k") == "a"


@pytest.mark.usefixtures("default_timeouts")
def test_a_journal_that_overflows_drops_the_keys_of_the_tenant_it_is_about(
    face: Any, cache: ResilientCache, redis_server: RedisServer, settings: Any
) -> None:
    settings.CACHE_LAYER_JOURNAL_MAX_ENTRIES = 3
    keys = [f"k{number}" for number in range(6)]
    for tenant in "ab":
        be(tenant)
        face.set_many(dict.fromkeys(keys, tenant))
    redis_server.stop()
    for key in keys:
        face.delete(key)
    assert state(cache) == "memory"
    redis_server.cont()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    assert face.get_many(keys) == {}
    be("a")
    assert face.get_many(keys) == dict.fromkeys(keys, "a")
