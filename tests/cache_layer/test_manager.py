from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import override_settings

from cache_layer import metrics
from cache_layer.backends import ResilientCache, shared_metrics
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.interface import SyncCache
from cache_layer.manager import RedisManager, get_redis_manager
from tests.cache_layer.caches import Stores, make_cache, state


class TestManager(Stores):
    @pytest.fixture
    def manager(self, backend: ResilientCache) -> RedisManager:
        return RedisManager(backend)

    def test_what_scan_keys_returns_goes_into_mget(
        self, manager: RedisManager, backend: ResilientCache
    ) -> None:
        SyncCache[Any](backend, "users").set_many({"1": "one", "2": "two"})
        SyncCache[Any](backend, "users2").set("1", "other")
        keys = async_to_sync(manager.scan_keys)("users:*")
        assert sorted(keys) == ["users:1", "users:2"]
        assert sorted(async_to_sync(manager.mget)(keys)) == ["one", "two"]

    @pytest.mark.parametrize("count", [1, 7, 5000])
    def test_scan_keys_finds_each_key_once_whatever_the_step(
        self, manager: RedisManager, count: int
    ) -> None:
        mapping = {f"k{number}": str(number) for number in range(700)}
        assert async_to_sync(manager.mset)(mapping) is True
        found = async_to_sync(manager.scan_keys)("*", count)
        assert sorted(found) == sorted(mapping)

    def test_mget_keeps_the_order_and_says_none(self, manager: RedisManager) -> None:
        async_to_sync(manager.mset)({"a": "1", "b": "2"}, ttl=100)
        assert async_to_sync(manager.mget)(["b", "missing", "a", "b"]) == ["2", None, "1", "2"]
        assert async_to_sync(manager.mget)([]) == []

    def test_mset_stores_all_or_raises(self, manager: RedisManager) -> None:
        with pytest.raises(UnsupportedValueError):
            async_to_sync(manager.mset)({"a": "1", "b": object()})
        assert async_to_sync(manager.mget)(["a", "b"]) == [None, None]

    def test_delete_by_pattern(self, manager: RedisManager) -> None:
        async_to_sync(manager.mset)({f"temp:{number}": "x" for number in range(2500)})
        async_to_sync(manager.mset)({"temporary": "x", "temp*": "x"})
        assert async_to_sync(manager.delete_by_pattern)("temp:*") == 2500
        assert async_to_sync(manager.delete_by_pattern)(r"temp\*") == 1
        assert async_to_sync(manager.scan_keys)("*") == ["temporary"]

    def test_a_prefix_with_glob_characters_stands_for_itself(self, backend: ResilientCache) -> None:
        odd = ResilientCache(backend._location, {"KEY_PREFIX": f"{backend.key_prefix}[*]"})
        near = ResilientCache(backend._location, {"KEY_PREFIX": f"{backend.key_prefix}*"})
        odd.set("k", 1)
        near.set("l", 1)
        assert async_to_sync(RedisManager(near).scan_keys)("*") == ["l"]
        assert async_to_sync(RedisManager(odd).delete_by_pattern)("*") == 1
        assert near.get("l") == 1
        near.clear()

    def test_metrics_count_by_namespace(
        self, manager: RedisManager, backend: ResilientCache
    ) -> None:
        metrics.reset()
        assert manager.get_hit_rate() == 0.0
        users = SyncCache[Any](backend, "users")
        users.set("k", 1)
        for key in ("k", "k", "k", "missing"):
            users.get(key)
        backend.get("missing")
        report = manager.get_metrics()
        assert report["hit_rate"] == manager.get_hit_rate() == 60.0
        assert manager.get_hit_rate("users") == 75.0
        assert manager.get_hit_rate("") == 0.0
        assert manager.get_hit_rate("never used") == 0.0
        assert report["metrics"]["users:hits"] == 3
        assert report["metrics"]["users:misses"] == 1
        assert report["metrics"]["users:sets"] == 1
        assert report["metrics"]["default:misses"] == 1
        assert report["backend"]["state"] == state(backend)
        assert (report["backend"]["reason"] == "") == (state(backend) == "redis")
        assert report["backend"]["since"].tzinfo is not None


async def test_the_manager_of_the_alias() -> None:
    manager = await get_redis_manager()
    await manager.mset({"m:1": "a"})
    assert await manager.scan_keys("m:*") == ["m:1"]
    assert await manager.delete_by_pattern("m:*") == 1


COUNTING = """
    import sys, django
    from django.conf import settings
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "cache_layer.backends.ResilientCache",
                "LOCATION": sys.argv[1],
                "KEY_PREFIX": sys.argv[2],
            }
        },
        INSTALLED_APPS=["cache_layer"],
        SECRET_KEY="only-for-tests",
    )
    django.setup()
    from django.core.cache import cache
    from django.core.signals import request_finished
    from cache_layer.interface import get_sync_cache
    get_sync_cache("users").set("k", 1)
    cache.get("missing")
    if sys.argv[3] == "request":
        request_finished.send(None)
        import os
        os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["request", "exit"])
def test_the_counters_of_all_processes(redis_url: str, end: str) -> None:
    backend = make_cache(redis_url)
    manager = RedisManager(backend)
    before = async_to_sync(manager.get_metrics_of_all_processes)()["metrics"]
    for _ in range(3):
        subprocess.run(
            [
                *(sys.executable, "-c", textwrap.dedent(COUNTING)),
                *(redis_url, backend.key_prefix, end),
            ],
            check=True,
        )
    after = async_to_sync(manager.get_metrics_of_all_processes)()["metrics"]
    assert after["users:sets"] - before.get("users:sets", 0) == 3
    assert after["default:misses"] - before.get("default:misses", 0) == 3
    assert async_to_sync(manager.scan_keys)("*") == ["users:k"]
    backend.clear()
    again = async_to_sync(manager.get_metrics_of_all_processes)()["metrics"]
    assert again["users:sets"] == after["users:sets"]


@pytest.fixture
def counted(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ResilientCache, int]]:
    """The alias of the counters on Redis, and the sets there before three more are added up."""
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": redis_url}
    with override_settings(CACHES={"default": {**entry, "KEY_PREFIX": uuid.uuid4().hex}}):
        # Django has closed the former caches now, which is an end of a request, too.
        monkeypatch.setattr(shared_metrics, "_due", 0.0)
        cache = caches["default"]
        shared_metrics.flush(cache)
        before = shared_sets(cache, redis_url)
        for number in range(3):
            SyncCache[Any](cache, "users").set("k", number)
        yield cache, before
        # Aliases share the store, and what it was refused.
        cache.store.close()


def shared_sets(cache: ResilientCache, url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.hget(cache.own_key("counters"), "users:sets") or 0)


@pytest.mark.parametrize("end", ["request", "exit"])
def test_the_end_of_a_request_or_process_adds_its_counters_to_those_of_all(
    counted: tuple[ResilientCache, int], redis_url: str, end: str
) -> None:
    cache, before = counted
    cache.close() if end == "request" else shared_metrics._flush_at_exit()
    assert shared_sets(cache, redis_url) == before + 3


def test_no_count_is_lost_where_redis_refuses_to_add_it(
    counted: tuple[ResilientCache, int], redis_url: str
) -> None:
    cache, _before = counted
    with redis.Redis.from_url(redis_url) as client:
        client.set(cache.own_key("counters"), "no hash")
        cache.close()
        client.delete(cache.own_key("counters"))
    metrics.flush(shared_metrics.SharedCounters(cache))
    assert shared_sets(cache, redis_url) == 3


def test_the_counters_of_all_processes_without_redis_are_this_processs() -> None:
    manager = RedisManager(make_cache())
    found = async_to_sync(manager.get_metrics_of_all_processes)()
    assert found == manager.get_metrics()


@override_settings(CACHE_LAYER_ALIAS="nowhere")
def test_a_wrong_alias_does_not_break_the_end_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = make_cache()
    cache.set("k", 1)
    monkeypatch.setattr(shared_metrics, "_due", 0.0)
    cache.close()
    assert cache.get("k") == 1


def test_closing_what_was_not_used_asks_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_metrics, "_due", 0.0)
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": "redis://127.0.0.1:1/0",
        "OPTIONS": {"NEAR_CACHE": "what the system checks tell of"},
    }
    with override_settings(CACHES={"default": entry}):
        caches["default"].close()


def test_a_store_knows_the_keys_of_every_alias_that_shares_it(redis_url: str) -> None:
    one, other = make_cache(redis_url), make_cache(redis_url)
    assert one.store is other.store
    assert {one.keyspace, other.keyspace} <= one.store.circuit.keyspaces.keys()
