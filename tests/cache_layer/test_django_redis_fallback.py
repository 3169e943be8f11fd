"""A redis-py whose connections are not as this package knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync

from cache_layer.backends import ResilientCache
from cache_layer.backends.redis import internals
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ResilientCache]:
    # As if redis-py kept what is read of it under another name.
    monkeypatch.setattr(internals, "SYNC", ("_sock_elsewhere",))
    monkeypatch.setattr(internals, "ASYNC", ("_writer_elsewhere",))
    monkeypatch.setattr(internals, "_warned", False)
    cache = make_cache(redis_server.url, OPTIONS={"NEAR_CACHE": True})
    yield cache
    cache.store.close()


def test_an_unknown_redis_py_is_used_by_its_own_clients(
    cache: ResilientCache, caplog: pytest.LogCaptureFixture
) -> None:
    async def awaited() -> None:
        await cache.aset("a", 1)
        await asyncio.gather(*(cache.aincr("a") for _ in range(20)))
        await cache.aset_many({f"k{number}": number for number in range(10)})
        await cache.asadd("s", "member")
        assert [await cache.aget("a") for _ in range(2)] == [21, 21]

    with caplog.at_level(logging.WARNING, "cache_layer"):
        cache.set("k", {"deep": [1]})
        assert cache.get("k") == {"deep": [1]}
        assert cache.get("k") == {"deep": [1]}
        async_to_sync(awaited)()
        assert cache.get("a") == 21
        assert len(cache.keys("k*")) == 11
        assert cache.smembers("s") == {"member"}
        assert cache.delete_pattern("k*") == 11
        assert not internals.are_known(object(), internals.SYNC)
    (warning,) = caplog.records
    assert "own, slower clients" in warning.getMessage()
    assert state(cache) == "redis"


def test_an_unknown_redis_py_recovers_from_an_outage(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    cache.set("k", "old")
    redis_server.stop()
    cache.set("k", "new")
    assert cache.get("k") == "new"
    assert state(cache) == "memory"
    redis_server.cont()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    assert cache.get("k") is None
    assert async_to_sync(cache.aget)("k") is None
