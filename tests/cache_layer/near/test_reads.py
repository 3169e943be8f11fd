"""What the near cache answers, and that it is never older than it may be."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync

from cache_layer import cached, get_cache, metrics
from cache_layer.backends import ResilientCache
from cache_layer.codec import SafeSerializer
from tests.cache_layer.caches import Awaited, Leases, make_cache, wait_for
from tests.cache_layer.near.helpers import (
    asked,
    default_alias,
    heard,
    listening,
    make_near,
    near_of,
    other_process,
)
from tests.cache_layer.test_backend import Asynchronous, Contract, LeaseContract, Synchronous


class Near:
    """Mix-in: what holds for a backend holds with a near cache too."""

    @pytest.fixture
    def backend(self, url: str) -> Iterator[ResilientCache]:
        cache = make_near(url)
        yield cache
        assert near_of(cache).on
        cache.store.close()


class TestSynchronous(Near, Synchronous, Contract):
    pass


class TestAwaited(Near, Asynchronous, Contract):
    pass


class TestLeases(Near, Synchronous, LeaseContract):
    pass


def test_a_value_that_was_read_is_not_asked_for_again(
    face: Any, cache: ResilientCache, client: redis.Redis
) -> None:
    face.set_many({"text": "t", "list": [1]})
    heard(cache, client)
    metrics.reset()
    before = asked(client)
    for _ in range(5):
        assert face.get("text") == "t"
        found = face.get("list")
        assert found == [1]
        # What a caller changes is changed for nobody else.
        found.append(2)
    assert asked(client) - before == 2
    counted = metrics.snapshot()
    assert counted["metrics"]["default:hits"] == 10
    assert counted["metrics"]["default:near_hits"] == 8
    assert counted["hit_rate"] == 100.0
    # Threads and loops share it.
    assert async_to_sync(cache.aget)("text") == "t"
    assert ResilientCache(cache._location, cache._params).get("list") == [1]
    assert asked(client) - before == 2


class Counting(SafeSerializer):
    """Counts the values that are decoded."""

    decoded = 0

    def loads(self, data: bytes) -> Any:
        type(self).decoded += 1
        return super().loads(data)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_near_value_that_cannot_be_changed_is_decoded_once(
    kind: str, url: str, client: redis.Redis
) -> None:
    with default_alias(url, NEAR_CACHE=True, SERIALIZER=f"{__name__}.{Counting.__name__}") as cache:
        face: Any = cache if kind == "sync" else Awaited(cache)

        @cached()
        def compute() -> str:
            return "result"

        @cached()
        async def acompute() -> str:
            return "result"

        function: Any = compute if kind == "sync" else async_to_sync(acompute)
        listening(cache)
        cache.set("text", "t")
        function()
        heard(cache, client)
        for _ in range(2):
            assert (face.get("text"), function()) == ("t", "result")
        before = Counting.decoded
        for _ in range(5):
            assert (face.get("text"), function()) == ("t", "result")
        assert Counting.decoded == before


def test_reads_of_missing_keys_leave_nothing_behind(face: Any, cache: ResilientCache) -> None:
    for number in range(20):
        assert face.get(f"missing-{number}") is None
        assert face.get_many([f"none-{number}", f"nothing-{number}"]) == {}
    near = near_of(cache)
    assert (len(near), len(near._pending)) == (0, 0)


WRITES: dict[str, tuple[Callable[[Any], object], Any]] = {
    "set": (lambda face: face.set("k", 2), 2),
    "set_many": (lambda face: face.set_many({"k": 2}), 2),
    "set, expired": (lambda face: face.set("k", 2, 0), None),
    "delete": (lambda face: face.delete("k"), None),
    "delete_many": (lambda face: face.delete_many(["k"]), None),
    "delete_pattern": (lambda face: face.delete_pattern("k*"), None),
    "clear": (lambda face: face.clear(), None),
    "incr": (lambda face: face.incr("k"), 2),
    "expire": (lambda face: face.touch("k", 0), None),
    "incr_version": (lambda face: face.incr_version("k"), None),
}


@pytest.mark.parametrize(("write", "expected"), WRITES.values(), ids=WRITES)
def test_a_process_reads_its_own_writes(
    face: Any, write: Callable[[Any], object], expected: Any
) -> None:
    for _ in range(5):
        face.set("k", 1)
        assert [face.get("k"), face.get("k")] == [1, 1]
        write(face)
        assert face.get("k") == expected


def test_a_value_stored_under_a_lease_is_read(face: Any, cache: ResilientCache) -> None:
    for number in range(5):
        assert face.get("k") is None
        leases = Leases(cache, face.run)
        lease = leases.claim("k")
        assert face.get("k") is None
        assert leases.fill("k", number, lease)
        assert face.get("k") == face.get("k") == number
        face.delete("k")


def test_an_entry_does_not_outlive_its_timeout(face: Any, client: redis.Redis) -> None:
    # So that Redis does not tell by itself.
    client.config_set("hz", 1)
    try:
        for _ in range(3):
            face.set("k", 1, 0.1)
            begun = time.monotonic()
            assert face.get("k") in (1, None)
            while face.get("k") == 1:
                assert time.monotonic() - begun < 0.15
    finally:
        client.config_set("hz", 10)


def test_get_many_asks_redis_for_missing_entries_alone(
    face: Any, cache: ResilientCache, client: redis.Redis
) -> None:
    values = {f"k{number}": [number] for number in range(5)}
    face.set_many(values)
    heard(cache, client)
    metrics.reset()
    face.get("k0")
    face.get("k1")
    before = asked(client, "mget")
    found = face.get_many([*values, "none"])
    assert found == values
    assert list(found) == list(values)
    found["k2"].append("changed")
    # What is missing is asked for each time.
    assert face.get_many([*values, "none"]) == values
    assert asked(client, "mget") == before + 2
    assert face.get_many(values) == values
    assert asked(client, "mget") == before + 2
    counted = metrics.snapshot()["metrics"]
    assert counted["default:hits"] == 2 + 15
    assert counted["default:near_hits"] == 2 + 5 + 5
    assert counted["default:misses"] == 2
    # What it read is there for others.
    before = asked(client)
    assert face.get("k4") == [4]
    assert asked(client) == before
    # Foreign writes, own writes, timeouts.
    client.set(cache.make_key("k3"), 33)
    wait_for(lambda: face.get_many(values)["k3"] == 33, "the change is heard of")
    face.delete("k3")
    assert "k3" not in face.get_many(values)
    assert face.get_many([]) == {}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_result_that_is_near_is_read_by_its_key(
    kind: str, store: ResilientCache, client: redis.Redis
) -> None:
    @cached(tags=["t"])
    def compute(number: int) -> str:
        return uuid.uuid4().hex

    result = compute(1)
    heard(store, client)
    assert compute(1) == result
    face: Any = store if kind == "sync" else Awaited(store)
    assert [face.get(compute.cache_key(1)) for _ in range(3)] == [result] * 3
    store.delete("@tag:t")
    assert face.get(compute.cache_key(1)) is None


def test_get_many_of_leases_results_and_foreign_keys(
    store: ResilientCache, client: redis.Redis
) -> None:
    @cached()
    def compute(number: int) -> str:
        return uuid.uuid4().hex

    client.set(store.make_key("foreign"), b"\xff")
    client.rpush(store.make_key("list"), 1)
    Leases(store).claim("leased")
    store.set("k", 1)
    result = compute(1)
    heard(store, client)
    compute(1)
    keys = ["foreign", "list", "leased", "k", compute.cache_key(1), "none"]
    for _ in range(3):
        assert store.get_many(keys) == {"k": 1, compute.cache_key(1): result}
    assert near_of(store).find([store.make_key("leased")]) == [None]
    assert near_of(store).find([store.make_key("foreign")]) == [None]
    compute.invalidate_all()
    assert store.get_many(keys) == {"k": 1}


def test_get_or_set_is_answered_by_the_near_cache(
    face: Any, cache: ResilientCache, client: redis.Redis
) -> None:
    metrics.reset()
    assert face.get_or_set("k", [1]) == [1]
    heard(cache, client)
    found = face.get_or_set("k", [2])
    found.append("changed")
    before = asked(client)
    assert face.get_or_set("k", [2]) == face.get_or_set("k", [2]) == [1]
    assert asked(client) == before
    assert metrics.snapshot()["metrics"]["default:near_hits"] == 2
    face.delete("k")
    assert face.get_or_set("k", [2]) == [2]
    heard(cache, client)
    assert face.get_or_set("k", [3]) == face.get("k") == [2]
    client.set(cache.make_key("k"), 5)
    wait_for(lambda: face.get_or_set("k", 6) == 5, "the change is heard of")
    # A lease is never kept, and what it is for is stored.
    face.delete("k")
    leases = Leases(cache, face.run)
    lease = leases.claim("k")
    assert leases.claim("k").token == lease.token
    assert leases.fill("k", 7, lease)
    assert face.get_or_set("k", 8) == 7


def test_only_the_namespaces_of_the_options_are_kept(url: str, client: redis.Redis) -> None:
    cache = make_cache(url, OPTIONS={"NEAR_CACHE": {"namespaces": ["users"]}})
    make = cache.operations("users")
    cache.run(make.get("nothing", None, None))
    wait_for(lambda: near_of(cache).on, "the near cache is on")
    cache.set("users:1", 1)
    heard(cache, client)
    before = asked(client)
    assert [cache.get("users:1") for _ in range(3)] == [1] * 3
    assert asked(client) - before == 3
    assert [cache.run(make.get("1", None, None)) for _ in range(3)] == [1] * 3
    assert asked(client) - before == 4
    cache.store.close()


async def test_the_namespaced_cache_uses_the_near_cache(
    store: ResilientCache, client: redis.Redis
) -> None:
    users = await get_cache("users")
    await users.set("1", "one")
    heard(store, client)
    before = asked(client)
    assert [await users.get("1") for _ in range(5)] == ["one"] * 5
    assert asked(client) - before == 1
    other_process(store).set("users:1", "two")
    while await users.get("1") != "two":
        await asyncio.sleep(0.01)


def test_bytes_that_are_no_value_are_not_kept(cache: ResilientCache, client: redis.Redis) -> None:
    client.set(cache.make_key("k"), b"\xff\xfe")
    client.rpush(cache.make_key("l"), "a list")
    for _ in range(3):
        assert cache.get("k", "default") == "default"
        assert cache.get("l", "default") == "default"
    assert len(near_of(cache)) == 0
    cache.set("k", None)
    heard(cache, client)
    assert cache.get("k", "default") is None
    assert cache.get("k", "default") is None
    assert len(near_of(cache)) == 1


def test_entries_and_bytes_are_bounded(url: str, client: redis.Redis) -> None:
    cache = make_near(url, {"max_entries": 100, "max_bytes": 100_000})
    near = near_of(cache)
    cache.set_many({f"k{number}": "x" * number for number in range(300)})
    cache.set("often", "used")
    for number in range(300):
        cache.get("often")
        cache.get(f"k{number}")
        assert len(near) <= 100
    cache.get("often")
    assert "used" in [decoded.value for decoded in cache._decoded._values.values()]  # type: ignore[union-attr]
    assert len(cache._decoded._values) == len(near)  # type: ignore[union-attr]
    cache.set_many({f"l{number}": b"x" * 30_000 for number in range(9)})
    cache.set("large", b"x" * 200_000)
    heard(cache, client)
    for number in range(9):
        cache.get(f"l{number}")
        assert 0 < near.bytes <= 100_000
    assert cache.get("large") == cache.get("large")
    assert 0 < near.bytes <= 100_000
    cache.store.close()


def test_two_prefixes_with_the_same_options_share_a_near_cache(
    url: str, client: redis.Redis
) -> None:
    one = make_near(url, KEY_PREFIX="a*:")
    longer = make_cache(url, OPTIONS={"NEAR_CACHE": True}, KEY_PREFIX="a*:b")
    other = make_cache(url, OPTIONS={"NEAR_CACHE": True}, KEY_PREFIX="c")
    assert one.store is longer.store is other.store
    for each in (longer, other):
        listening(each)
    for each in (one, longer, other):
        each.set("k", 1)
    heard(one, client)
    for each in (one, longer, other):
        assert [each.get("k"), each.get("k")] == [1, 1]
    assert len(near_of(one)) == 3
    for left, each in enumerate((one, longer, other)):
        client.set(each.make_key("k"), 2)
        wait_for(lambda left=left: len(near_of(one)) == 2 - left, "the change is heard of")
    one.store.close()
