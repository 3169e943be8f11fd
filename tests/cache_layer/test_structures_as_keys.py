"""Hashes, sets and lists are keys like any others: they expire, are listed and move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django_redis.cache import RedisCache

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Left, make_cache, state, wait_for
from tests.cache_layer.conftest import PATIENT
from tests.services import RedisServer

pytestmark = pytest.mark.redis

MAKE: dict[str, Callable[[Any], Any]] = {
    "hash": lambda cache: cache.hset("k", "f", 1),
    "set": lambda cache: cache.sadd("k", 1),
    "sorted set": lambda cache: cache.zadd("k", {"m": 1}),
    "list": lambda cache: cache.client.get_client().rpush(cache.client.make_key("k"), 1),
    "stream": lambda cache: cache.client.get_client().xadd(cache.client.make_key("k"), {"f": 1}),
}


@pytest.fixture(params=MAKE)
def made(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return MAKE[request.param]


@pytest.fixture
def cache(redis_url: str) -> Iterator[ResilientCache]:
    cache = make_cache(redis_url, OPTIONS=PATIENT)
    yield cache
    cache.clear()


def test_a_structure_expires_when_it_is_told_to(
    face: Any, cache: ResilientCache, made: Callable[[Any], Any]
) -> None:
    left = Left()
    made(cache)
    assert face.has_key("k")
    assert face.ttl("k") is None
    for method, argument in (("expire", 60), ("touch", 60), ("pexpire", 60_000)):
        assert getattr(face, method)("k", argument), method
        assert face.ttl("k") in left.of(60)
        assert face.persist("k")
        assert face.ttl("k") is None
    assert face.expire("k", 0)
    assert not face.has_key("k")


def test_a_structure_is_listed_and_deleted_by_pattern(
    face: Any, cache: ResilientCache, made: Callable[[Any], Any]
) -> None:
    made(cache)
    cache.set("kk", 1)
    assert sorted(face.keys("k*")) == sorted(cache.iter_keys("k*")) == ["k", "kk"]
    assert face.delete_pattern("k*") == 2
    assert face.keys() == []


def test_a_structure_moves_to_another_version(
    face: Any, cache: ResilientCache, made: Callable[[Any], Any]
) -> None:
    made(cache)
    assert face.incr_version("k") == 2
    assert (face.has_key("k"), face.has_key("k", version=2)) == (False, True)
    face.delete("k", version=2)


def test_a_structure_counts_where_a_value_is_wanted_or_not(
    face: Any, cache: ResilientCache, made: Callable[[Any], Any]
) -> None:
    made(cache)
    assert not face.add("k", 1)
    assert not face.set("k", 1, nx=True)
    assert face.get("k", "none") == "none"
    assert face.set("k", 1, xx=True)
    assert face.get("k") == 1


def test_structures_are_as_django_redis_has_them(
    cache: ResilientCache, redis_url: str, made: Callable[[Any], Any]
) -> None:
    theirs = RedisCache(redis_url, {"KEY_PREFIX": cache.key_prefix})
    left = Left()
    made(cache)
    assert theirs.expire("k", 60)
    assert cache.ttl("k") in left.of(60)
    assert sorted(cache.keys()) == sorted(theirs.keys("*"))
    assert cache.persist("k")
    assert theirs.ttl("k") is None


def test_the_counters_of_metrics_are_no_keys_of_the_cache(redis_url: str) -> None:
    # Their hash stands among the keys, because this function has no place for a version.
    cache = make_cache(redis_url, KEY_FUNCTION=lambda key, prefix, version: f"{prefix}/{key}")
    counters = cache.own_key("counters")
    client = cache.client.get_client()
    client.hset(counters, "default:hits", 1)
    cache.set("k", 1)
    assert cache.keys() == list(cache.iter_keys()) == ["k"]
    assert cache.delete_pattern("*") == 1
    cache.clear()
    assert client.hgetall(counters)


@pytest.mark.usefixtures("default_timeouts")
@pytest.mark.parametrize("method", ["expire", "touch", "persist", "incr_version"])
def test_what_an_outage_forgets_of_a_structure_is_only_its_new_expiry(
    redis_server: RedisServer, method: str
) -> None:
    cache = make_cache(redis_server.url)
    cache.sadd("s", "kept")
    cache.set("k", "dropped")
    redis_server.stop()
    for key in ("s", "k"):
        call = getattr(cache, method)
        try:
            call(key)
        except ValueError:
            assert method == "incr_version"
    redis_server.cont()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.smembers(cache.client.make_key("s"))
    assert cache.get("k") is None
    cache.store.close()
