"""Replies that nobody asked for are never taken for the replies to later commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Awaited, close, make_cache, state, wait_for
from tests.faults.proxy import Proxy
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(redis_server.port)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def cache(proxy: Proxy) -> Iterator[ResilientCache]:
    cache = make_cache(proxy.url)
    yield cache
    close(cache)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, cache: ResilientCache) -> Any:
    return cache if request.param == "sync" else Awaited(cache)


def test_no_call_gets_the_value_of_another_key(
    face: Any, cache: ResilientCache, proxy: Proxy
) -> None:
    keys = [f"k{number}" for number in range(5)]
    cache.set_many({key: key for key in keys})
    proxy.fault = "repeat"
    for _ in range(5):
        for key in keys:
            # Redis or memory answers: the right value or none.
            assert face.get(key, key) == key
            assert face.get_many([key]) in ({key: key}, {})
            assert face.has_key(key) in (True, False)
            face.set_many({key: key, f"{key}:2": key})
    proxy.fault = "none"
    wait_for(lambda: face.set("k", 1) and state(cache) == "redis", "Redis answers again")
    assert [face.get(key, key) for key in keys] == keys
