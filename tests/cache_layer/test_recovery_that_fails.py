"""Recoveries that break down half-way: what was invalidated during the outage stays so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cache_layer import cached
from cache_layer.backends import ResilientCache
from cache_layer.backends.recovery import PurgeKeyspaces
from tests.cache_layer.caches import close, make_cache, state, wait_for
from tests.faults.proxy import Proxy
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture(autouse=True)
def looks_often(settings: Any) -> None:
    settings.CACHE_LAYER_PROBE_INTERVAL = 0.05


@pytest.fixture
def cache(proxy: Proxy) -> Iterator[ResilientCache]:
    cache = make_cache(proxy.url)
    yield cache
    proxy.refuse = ()
    close(cache)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        yield client


def back(cache: ResilientCache) -> None:
    wait_for(lambda: state(cache) == "redis", "Redis answers again")


#: What is invalidated during the outage, and a word of every command that could replay it.
INVALIDATIONS: dict[str, tuple[Callable[[Any], object], bytes]] = {
    "a key": (lambda face: face.delete("users:1"), b"users:1"),
    "an overwritten key": (lambda face: face.set("users:1", "new"), b"users:1"),
    "many keys": (lambda face: face.delete_many(["users:1", "users:2"]), b"users:1"),
    "a pattern": (lambda face: face.delete_pattern("users:*"), b"SCAN"),
    "everything": (lambda face: face.clear(), b"SCAN"),
}


@pytest.mark.parametrize(("invalidate", "word"), INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_invalidations_whose_replay_failed_are_tried_again(
    face: Any,
    cache: ResilientCache,
    proxy: Proxy,
    client: redis.Redis,
    invalidate: Callable[[Any], object],
    word: bytes,
) -> None:
    face.set("users:1", "old")
    # Redis itself hears nothing of the invalidation, not even late.
    proxy.fault = "silent"
    invalidate(face)
    invalidate(face)
    assert state(cache) == "memory"
    proxy.refuse = (word,)
    proxy.fault = "none"
    seen = proxy.refused
    wait_for(lambda: proxy.refused >= seen + 2, "the replay fails twice")
    # Until the replay has worked nothing is read from Redis, which still has the old value.
    assert state(cache) == "memory"
    assert client.exists(cache.make_key("users:1")) == 1
    assert face.get("users:1") in (None, "new")
    proxy.refuse = ()
    back(cache)
    assert client.exists(cache.make_key("users:1")) == 0
    assert face.get("users:1") is None


def test_an_invalidation_by_pattern_does_not_scan_beside_the_recovery(
    face: Any, cache: ResilientCache, proxy: Proxy, client: redis.Redis
) -> None:
    cache.set_many({f"k{number}": number for number in range(20_000)})
    face.set("users:1", "old")
    proxy.fault = "silent"
    face.delete_pattern("orders:*")
    assert state(cache) == "memory"
    proxy.seconds = 0.03
    proxy.fault = "delay"
    wait_for(lambda: cache.store.breaker.draining, "the recovery scans")
    assert face.delete_pattern("users:*") == 1
    assert state(cache) == "redis"
    assert client.exists(cache.make_key("users:1")) == 0


def test_a_write_does_not_replay_what_another_call_gave_back(
    cache: ResilientCache, proxy: Proxy, client: redis.Redis
) -> None:
    cache.set_many({f"k{number}": number for number in range(20_000)})
    proxy.fault = "silent"
    cache.delete("users:1")
    cache.delete_pattern("orders:*")
    proxy.seconds = 0.03
    proxy.fault = "delay"
    wait_for(lambda: cache.store.breaker.draining, "the recovery scans")
    entries = cache.store.circuit.new_journal()
    entries.add_pattern(cache.make_key("pages:*"), cache.context.keyspace)
    assert not cache.store.circuit.give_back(entries.take())
    cache.set("users:1", "new")
    assert len(cache.store.circuit.journal) == 1, "the recovery's"
    back(cache)
    assert cache.get("users:1") is None


def test_what_is_invalidated_between_two_failed_replays_is_replayed_with_the_rest(
    cache: ResilientCache, proxy: Proxy, client: redis.Redis
) -> None:
    keys = [f"k{number}" for number in range(4)]
    cache.set_many(dict.fromkeys(keys, "old"))
    cache.set("untouched", "right")
    proxy.fault = "silent"
    cache.delete("k0")
    proxy.refuse = (b"k0",)
    proxy.fault = "none"
    for number, key in enumerate(keys):
        wait_for(lambda number=number: proxy.refused > number, "another replay fails")
        cache.delete(key)
    proxy.refuse = ()
    back(cache)
    assert [client.exists(cache.make_key(key)) for key in keys] == [0, 0, 0, 0]
    assert cache.get_many([*keys, "untouched"]) == {"untouched": "right"}


def test_a_journal_that_overflows_while_the_replay_fails_drops_the_prefix(
    cache: ResilientCache, proxy: Proxy, settings: Any
) -> None:
    settings.CACHE_LAYER_JOURNAL_MAX_ENTRIES = 3
    keys = [f"k{number}" for number in range(8)]
    cache.set_many(dict.fromkeys(keys, "old"))
    proxy.fault = "silent"
    cache.delete("k0")
    proxy.refuse = (b"k0", b"SCAN")
    proxy.fault = "none"
    wait_for(lambda: proxy.refused > 1, "the replay fails")
    for key in keys:
        cache.delete(key)
    proxy.refuse = ()
    back(cache)
    assert cache.get_many(keys) == {}


def test_an_outage_during_the_recovery_is_a_part_of_the_same_outage(
    cache: ResilientCache, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    cache.set("k", "old")
    with caplog.at_level(logging.INFO, logger="cache_layer"):
        proxy.fault = "silent"
        cache.delete("k")
        for _ in range(3):
            proxy.refuse = (b"k",)
            proxy.fault = "none"
            seen = proxy.refused
            wait_for(lambda seen=seen: proxy.refused > seen, "the replay fails")
            proxy.fault = "cut"
            proxy.refuse = ()
            assert cache.get("k") is None
        proxy.fault = "none"
        back(cache)
        wait_for(lambda: "answers again" in caplog.text, "the last line")
    assert cache.get("k") is None
    # One line when it went, one when it came back, whatever happened in between.
    assert [each.levelname for each in caplog.records] == ["WARNING", "WARNING"]


def test_a_server_that_was_replaced_is_read_only_after_it_was_emptied(
    cache: ResilientCache, proxy: Proxy, redis_server: RedisServer, settings: Any
) -> None:
    """The new one may have an older copy of the data; emptying it fails at first."""
    calls: list[int] = []

    @cached(key_prefix="f")
    def compute() -> int:
        calls.append(1)
        return len(calls)

    settings.CACHES = {
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": proxy.url,
            "KEY_PREFIX": cache.key_prefix,
        }
    }
    assert compute() == 1
    key = cache.make_key("k")
    cache.set("k", "old")
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        dump = client.dump(key)
    redis_server.kill()
    cache.delete("k")
    proxy.refuse = (b"SCAN",)
    redis_server.restart()
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        client.restore(key, 0, dump)
        client.restore(cache.make_key("never deleted here"), 0, dump)
        seen = proxy.refused
        wait_for(lambda: proxy.refused > seen + 1, "emptying fails twice")
        assert state(cache) == "memory"
        proxy.refuse = ()
        back(cache)
        assert client.exists(key, cache.make_key("never deleted here")) == 0
    assert compute() == 2


@pytest.mark.slow
def test_a_redis_that_answers_every_other_probe_is_not_trusted(
    cache: ResilientCache, proxy: Proxy, settings: Any
) -> None:
    settings.CACHE_LAYER_PROBE_INTERVAL = 0.6
    cache.set("k", "old")
    proxy.fault = "silent"
    cache.delete("k")
    assert state(cache) == "memory"
    proxy.alternate = True
    proxy.fault = "none"
    wait_for(lambda: proxy.refused >= 4, "it looks eight times")
    assert state(cache) == "memory"
    proxy.alternate = False
    back(cache)
    assert cache.get("k") is None


@pytest.mark.slow
def test_a_server_that_takes_over_during_the_recovery_is_not_trusted(
    face: Any,
    cache: ResilientCache,
    proxy: Proxy,
    client: redis.Redis,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is met by a connection that is made between the probe and the look at its mark."""
    key = cache.make_key("k")
    other = RedisServer()
    other.start()
    try:
        with redis.Redis.from_url(other.url, socket_timeout=10) as admin:
            admin.execute_command("REPLICAOF", "127.0.0.1", str(redis_server.port))
            # A server takes a new history when it gets its first replica.
            wait_for(lambda: client.info("replication")["connected_slaves"], "it is a replica")
            face.set("k", "old")
            wait_for(lambda: admin.exists(key), "the replica has it")
            admin.execute_command("REPLICAOF", "NO", "ONE")
        # Another process invalidates what the other server still holds.
        client.delete(key)
        transport = cache.store.transport
        assert transport is not None
        run = transport.run

        def taken_over(operation: Any) -> Any:
            if isinstance(operation, PurgeKeyspaces) and proxy.target != other.port:
                proxy.target = other.port
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                wait_for(lambda: not proxy.connections, "the connections have ended")
            return run(operation)

        monkeypatch.setattr(transport, "run", taken_over)
        proxy.refuse = (b"another",)
        face.set("another", "lost")
        assert state(cache) == "memory"
        proxy.refuse = ()
        wait_for(lambda: proxy.target == other.port, "the other server takes over")
        back(cache)
        assert face.get("k") is None
        back(cache)
        assert face.get("k") is None
    finally:
        other.close()
