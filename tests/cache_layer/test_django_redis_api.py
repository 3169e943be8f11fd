"""What code written for django-redis calls, while Redis answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.test import override_settings
from django_redis import get_redis_connection
from django_redis.cache import RedisCache
from django_redis.client import DefaultClient
from redis.exceptions import LockNotOwnedError, ResponseError

from cache_layer import cached
from cache_layer.backends import CacheUnavailableError, ResilientCache
from tests.cache_layer.caches import Leases, make_cache, state
from tests.cache_layer.conftest import PATIENT

pytestmark = pytest.mark.redis


@pytest.fixture
def cache(redis_url: str) -> Iterator[ResilientCache]:
    cache = make_cache(redis_url, OPTIONS=PATIENT)
    yield cache
    assert state(cache) == "redis"
    cache.clear()


@pytest.fixture
def near(redis_url: str) -> Iterator[ResilientCache]:
    """A cache that keeps what it reads in this process, and does so already."""
    cache = make_cache(redis_url, OPTIONS={**PATIENT, "NEAR_CACHE": True})
    cache.set("warm", 1)
    while not cache.store.describe()["near"]["entries"]:
        cache.get("warm")
    yield cache
    cache.clear()
    cache.store.close()


def test_set_nx_stores_only_where_there_is_no_value(face: Any) -> None:
    assert face.set("k", 1, nx=True) is True
    assert face.set("k", 2, nx=True) is False
    assert face.get("k") == 1
    assert face.set("k", 3, timeout=-1, nx=True) is False
    assert face.get("k") == 1


def test_set_xx_stores_only_where_there_is_a_value(face: Any) -> None:
    assert face.set("k", 1, xx=True) is False
    assert face.get("k") is None
    face.set("k", 1)
    assert face.set("k", 2, timeout=None, xx=True) is True
    assert face.get("k") == 2
    assert face.ttl("k") is None


def test_nx_and_xx_together_are_refused(face: Any) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        face.set("k", 1, nx=True, xx=True)


def test_a_lease_is_no_value_for_nx_and_xx(cache: ResilientCache) -> None:
    leases = Leases(cache)
    lease = leases.claim("k")
    assert cache.set("k", "updated", xx=True) is False
    assert cache.set("k", "first", nx=True) is True
    assert leases.fill("k", "computed before", lease) is False
    assert cache.get("k") == "first"


def test_expiry_is_read_and_changed_in_every_unit(face: Any) -> None:
    face.set("k", 1, timeout=None)
    assert face.pttl("k") is None
    assert face.persist("k") is False
    assert face.expire("k", dt.timedelta(minutes=1)) is True
    assert face.ttl("k") == 60
    assert face.pexpire("k", 2500) is True
    assert 0 < face.pttl("k") <= 2500
    in_an_hour = time.time() + 3600
    assert face.expire_at("k", in_an_hour) is True
    assert 3500 < face.ttl("k") <= 3600
    assert face.pexpire_at("k", in_an_hour * 1000) is True
    assert 3500 < face.ttl("k") <= 3600
    assert face.expire_at("k", dt.datetime.fromtimestamp(in_an_hour, dt.UTC)) is True
    assert 3500 < face.ttl("k") <= 3600
    assert face.persist("k") is True
    assert face.ttl("k") is None
    assert face.expire_at("k", in_an_hour - 7200) is True
    assert face.get("k") is None
    assert face.pttl("k") == 0
    assert face.persist("k") is face.expire("k", 1) is face.pexpire_at("k", 1) is False


def test_persisting_a_result_keeps_its_tags(cache: ResilientCache, redis_url: str) -> None:
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": redis_url,
        "OPTIONS": PATIENT,
        "KEY_PREFIX": cache.key_prefix,
    }
    with override_settings(CACHES={"default": entry}):

        @cached(ttl=30, tags=["colours"])
        def colour() -> str:
            return "red"

        assert colour() == "red"
        assert cache.persist(colour.cache_key()) is True
    raw = cache.get_client()
    keys = raw.keys(f"{cache.key_prefix}:1:*")
    lives = {key: raw.ttl(key) for key in keys}
    assert any(b"@tag" in key for key in lives)
    assert set(lives.values()) == {-1}


def test_conditional_writes_are_seen_past_the_near_cache(near: ResilientCache) -> None:
    near.set("k", "old")
    assert near.get("k") == "old"
    assert near.set("k", "new", xx=True) is True
    assert near.get("k") == "new"
    assert near.expire_at("k", time.time() - 1) is True
    assert near.get("k") is None
    assert near.set("k", "newest", nx=True) is True
    assert near.get("k") == "newest"
    assert near.pexpire("k", -1) is True
    assert near.get("k") is None


def test_a_stored_union_is_seen_past_the_near_cache(near: ResilientCache) -> None:
    near.sadd("s", 1, 2)
    for number in range(200):
        near.set("k", number)
        assert near.get("k") == number
        assert near.sunionstore("k", "s") == 2
        # A set is no value.
        assert near.get("k") is None


def test_numbers_are_made_where_they_are_missing(face: Any) -> None:
    assert face.incr("n", 5, ignore_key_check=True) == 5
    assert face.incr("n", 5, ignore_key_check=True) == 10
    assert 0 < face.ttl("n") <= 300


def test_keys_are_iterated_in_steps(cache: ResilientCache) -> None:
    names = {f"k{number}" for number in range(250)}
    cache.set_many(dict.fromkeys(names, 1))
    cache.set("other", 1)

    async def awaited() -> set[str]:
        return {key async for key in cache.aiter_keys("k*", itersize=20)}

    assert set(cache.iter_keys("k*", itersize=20)) == names
    assert async_to_sync(awaited)() == names
    assert set(cache.keys("k*")) == names
    assert cache.delete_pattern("k*", itersize=20) == 250
    assert cache.keys() == ["other"]


def test_deleting_many_tells_how_many_there_were(face: Any) -> None:
    face.set_many({"a": 1, "b": 2})
    assert face.delete_many(["a", "b", "c"]) == 2


def test_a_pipeline_of_redis_py_is_filled(cache: ResilientCache) -> None:
    pipeline = cache.get_client().pipeline()
    cache.set("a", {"b": 1}, client=pipeline)
    cache.incr("n", client=pipeline, ignore_key_check=True)
    cache.delete("missing", client=pipeline)
    assert cache.get_many(["a", "n"]) == {}
    assert pipeline.execute() == [True, 1, 0]
    assert cache.get_many(["a", "n"]) == {"a": {"b": 1}, "n": 1}


def test_django_redis_hands_out_the_connection(redis_url: str) -> None:
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": redis_url}
    with override_settings(CACHES={"default": entry}):
        connection = get_redis_connection("default")
        assert isinstance(connection, redis.Redis)
        assert connection.ping() is True


def test_the_client_is_django_redis_s_own(cache: ResilientCache) -> None:
    assert isinstance(cache.client, DefaultClient)
    assert cache.client.make_key("k") == cache.make_key("k")
    cache.client.set("k", [1], timeout=60)
    assert cache.get("k") == [1]


def test_hashes_hold_values_by_field(face: Any) -> None:
    assert face.hset("h", "a", {"deep": [1]}) == 1
    assert face.hset("h", mapping={"b": 2, "c": "3"}) == 2
    assert face.hget("h", "a") == {"deep": [1]}
    assert face.hget("h", "missing", "nothing") == "nothing"
    assert face.hgetall("h") == {"a": {"deep": [1]}, "b": 2, "c": "3"}
    assert face.hgetall("missing") == {}
    assert sorted(face.hkeys("h")) == ["a", "b", "c"]
    assert face.hexists("h", "a") is True
    assert face.hdel("h", "a") == 1
    assert face.hlen("h") == 2


def test_sets_hold_values_of_any_type(face: Any) -> None:
    assert face.sadd("s", 1, "1", ("t", 2)) == 3
    assert face.smembers("s") == {1, "1", ("t", 2)}
    assert face.smismember("s", 1, 2) == [True, False]
    assert face.sadd("other", 1) == 1
    assert face.sinter("s", "other") == {1}
    assert face.sdiffstore("left", "s", "other") == 2
    assert face.scard("left") == 2
    assert face.srem("left", "1") == 1
    assert face.spop("left") == ("t", 2)
    assert face.sscan("s") == {1, "1", ("t", 2)}


def test_members_of_a_set_are_iterated_in_steps(cache: ResilientCache) -> None:
    cache.sadd("s", *(f"m{number}" for number in range(1500)))

    async def awaited() -> set[str]:
        return {member async for member in cache.asscan_iter("s", count=100)}

    members = {f"m{number}" for number in range(1500)}
    assert set(cache.sscan_iter("s", count=100)) == members
    assert async_to_sync(awaited)() == members


def test_compressed_members_cannot_be_matched(redis_url: str) -> None:
    compressor = "django_redis.compressors.zlib.ZlibCompressor"
    cache = make_cache(redis_url, OPTIONS={**PATIENT, "COMPRESSOR": compressor})
    cache.sadd("s", "member")

    async def matched() -> list[Any]:
        return [member async for member in cache.asscan_iter("s", match="m*")]

    for match in (lambda: [*cache.sscan_iter("s", match="m*")], async_to_sync(matched)):
        with pytest.raises(ValueError, match=r"(?i)compress"):
            match()
    assert [*cache.sscan_iter("s")] == ["member"]
    cache.store.close()


def test_sorted_sets_order_values_by_score(face: Any) -> None:
    assert face.zadd("z", {"a": 1.5, ("b", 2): 2, "c": 3}) == 3
    assert face.zrange("z", 0, -1, withscores=True) == [("a", 1.5), (("b", 2), 2), ("c", 3)]
    assert face.zrevrangebyscore("z", 3, 2) == ["c", ("b", 2)]
    assert face.zincrby("z", 0.5, "a") == 2.0
    assert face.zscore("z", "a") == 2.0
    assert face.zrank("z", "c") == 2
    assert face.zpopmax("z") == ("c", 3.0)
    assert face.zcount("z", 0, 10) == 2


def test_data_structures_are_those_of_django_redis(cache: ResilientCache, redis_url: str) -> None:
    options = {"SERIALIZER": "cache_layer.codec.SafeSerializer"}
    theirs = RedisCache(redis_url, {"KEY_PREFIX": cache.key_prefix, "OPTIONS": options})
    cache.hset("h", "field", [1], version=3)
    assert theirs.hexists("h", "field", version=3)
    theirs.sadd("s", ("tuple",))
    assert cache.smembers("s") == {("tuple",)}
    theirs.zadd("z", {"m": 1})
    assert cache.zscore("z", "m") == 1.0


def test_a_refused_command_concerns_its_caller_alone(face: Any, cache: ResilientCache) -> None:
    face.set("k", "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        face.sadd("k", "member")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        face.hkeys("k")
    assert state(cache) == "redis"
    assert face.get("k") == "text"


def test_keys_of_a_project_s_own_class_reach_the_data_structures(redis_url: str) -> None:
    class TenantCache(ResilientCache):
        tenant = "one"

        def make_key(self, key: Any, version: int | None = None) -> str:
            return super().make_key(f"{self.tenant}:{key}", version)

    cache = TenantCache(redis_url, {"KEY_PREFIX": f"test-{uuid.uuid4().hex}", "OPTIONS": PATIENT})
    cache.sadd("s", "of one")
    cache.tenant = "two"
    assert cache.smembers("s") == set()
    assert async_to_sync(cache.asmembers)("s") == set()
    cache.delete_pattern("*")


def test_a_prefix_of_the_call_takes_the_alias_s_version(redis_url: str) -> None:
    class ProjectCache(ResilientCache):
        def make_key(self, key: Any, version: int | None = None) -> str:
            return super().make_key(f"tenant:{key}", version)

    cache = ProjectCache(redis_url, {"KEY_PREFIX": "p", "VERSION": 3, "OPTIONS": PATIENT})
    with redis.Redis.from_url(redis_url, socket_timeout=10) as client:
        client.mset({"other:3:k": "of another alias", "other:4:k": "of its next version"})
        assert cache.client.delete("k", prefix="other") == 1
        assert cache.client.delete("k", version=4, prefix="other") == 1


def test_a_lock_is_held_by_one_thread(cache: ResilientCache) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with cache.lock("l", timeout=30, sleep=0.01):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not cache.has_key("l")


async def test_an_awaited_lock_is_held_by_one_task(cache: ResilientCache) -> None:
    inside = 0
    most = 0

    async def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            async with cache.alock("l", timeout=30, sleep=0.01):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

    await asyncio.gather(*(work() for _ in range(5)))
    assert most == 1
    # One lock in both worlds.
    assert await cache.alock("l", timeout=30).acquire()
    assert await asyncio.to_thread(cache.lock("l").acquire, blocking=False) is False


def test_only_its_holder_releases_a_lock(cache: ResilientCache) -> None:
    lock = cache.lock("l", timeout=30)
    assert lock.acquire()
    cache.delete("l")
    other = cache.lock("l", timeout=30)
    assert other.acquire(blocking=False)
    with pytest.raises(LockNotOwnedError):
        lock.release()
    other.release()


def test_without_a_location_the_remedy_is_named() -> None:
    cache = make_cache()
    for call in (
        lambda: cache.sadd("s", 1),
        lambda: async_to_sync(cache.asadd)("s", 1),
        lambda: cache.lock("l"),
        lambda: cache.alock("l"),
        lambda: cache.client,
        lambda: cache.set("k", 1, nx=True),
    ):
        with pytest.raises(CacheUnavailableError, match="set it to a Redis URL"):
            call()
