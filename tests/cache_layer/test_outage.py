from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import redis
from django.test import override_settings

from cache_layer import cached, cached_many, invalidate_tags
from cache_layer.backends import ResilientCache
from cache_layer.codec import SafeSerializer
from cache_layer.functions.refresh import background
from cache_layer.signals import cache_state_changed
from tests.cache_layer.caches import Leases, make_cache, state, wait_for
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    cache = make_cache(redis_server.url)
    yield cache
    cache.store.close()


@pytest.fixture
def server_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        yield client


def default_alias(url: str, **params: str) -> override_settings:
    """Make this Redis that of the decorators."""
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": url, **params}
    return override_settings(CACHES={"default": entry})


def back(cache: ResilientCache) -> None:
    wait_for(lambda: state(cache) == "redis", "Redis answers again")


def test_killing_redis_in_the_middle_of_a_loop_raises_nothing(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    errors: list[BaseException] = []
    done = threading.Event()
    rounds = [0, 0]

    def sync_loop() -> None:
        try:
            while not done.is_set():
                cache.set("s", rounds[0])
                cache.get("s")
                cache.get_many(["s", "n"])
                cache.get_or_set("g", lambda: 1)
                cache.delete("g")
                rounds[0] += 1
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    async def async_loop() -> None:
        while not done.is_set():
            await asyncio.gather(
                cache.aset("a", 1),
                cache.aget("a"),
                cache.aadd("b", 1),
                cache.aget_or_set("h", lambda: 1),
                cache.adelete_pattern("b*"),
                cache.atouch("a"),
            )
            rounds[1] += 1

    def run_async_loop() -> None:
        try:
            asyncio.run(async_loop())
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=target) for target in (sync_loop, sync_loop, run_async_loop)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        seen = list(rounds)
        wait_for(lambda seen=seen: min(map(int.__sub__, rounds, seen)) > 20, "rounds with Redis")
        redis_server.kill()
        wait_for(lambda: state(cache) == "memory", "the kill is noticed")
        seen = list(rounds)
        wait_for(lambda seen=seen: min(map(int.__sub__, rounds, seen)) > 20, "rounds without")
        redis_server.restart()
        back(cache)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_one_call_finds_a_hung_redis_and_the_others_do_not_ask_it(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    face.set("k", "on redis")
    redis_server.stop()
    assert face.get("k") is None
    assert state(cache) == "memory"
    for number in range(300):
        face.set("k", number)
        assert face.get("k") == number
    redis_server.cont()
    back(cache)
    assert face.get("k") is None


INVALIDATIONS: dict[str, Callable[[Any], object]] = {
    "delete": lambda face: face.delete("users:1"),
    "delete_many": lambda face: face.delete_many(["users:1"]),
    "overwrite": lambda face: face.set("users:1", "new"),
    "overwrite many": lambda face: face.set_many({"users:1": "new"}),
    "add": lambda face: face.add("users:1", "new"),
    "expiry": lambda face: face.set("users:1", "new", 0),
    "pattern": lambda face: face.delete_pattern("users:*"),
    "clear": lambda face: face.clear(),
    "version": lambda face: (face.set("users:1", "new"), face.incr_version("users:1")),
}


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_nothing_stale_is_served_after_the_outage(
    face: Any,
    cache: ResilientCache,
    redis_server: RedisServer,
    server_client: redis.Redis,
    invalidate: Callable[[Any], object],
) -> None:
    face.set("users:1", "old")
    face.set("other", "still right")
    redis_server.stop()
    invalidate(face)
    # The first invalidation was the call that found Redis hung: Redis may do it when it wakes up.
    # This one it never hears of.
    invalidate(face)
    redis_server.cont()
    back(cache)
    assert face.get("users:1") is None
    assert server_client.exists(cache.make_key("users:1")) == 0
    if invalidate is not INVALIDATIONS["clear"]:
        assert face.get("other") == "still right"


def test_more_invalidations_than_can_be_remembered_drop_the_whole_prefix(
    cache: ResilientCache, redis_server: RedisServer, settings: Any
) -> None:
    settings.CACHE_LAYER_JOURNAL_MAX_ENTRIES = 3
    neighbour = make_cache(redis_server.url)
    neighbour.set("k", "theirs")
    keys = [f"k{number}" for number in range(8)]
    cache.set_many(dict.fromkeys([*keys, "untouched"], "old"))
    redis_server.stop()
    for key in keys:
        cache.delete(key)
    redis_server.cont()
    back(cache)
    assert cache.get_many([*keys, "untouched"]) == {}
    assert neighbour.get("k") == "theirs"


def test_what_was_written_during_the_outage_does_not_outlive_it(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    redis_server.kill()
    face.set("k", "memory")
    assert face.incr("k2", 1) if face.add("k2", 1) else False
    assert face.get("k") == "memory"
    redis_server.restart()
    back(cache)
    assert face.get_many(["k", "k2"]) == {}
    redis_server.kill()
    assert face.get_many(["k", "k2"]) == {}
    face.set("other", 1)
    assert state(cache) == "memory"
    assert face.get_many(["k", "k2"]) == {}


def test_a_write_that_timed_out_and_is_done_late_is_not_served(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    face.set("k", "first")
    redis_server.stop()
    # Sent to the hung server, which does it when it wakes up.
    face.set("k", "late")
    face.set("k", "newest")
    redis_server.cont()
    back(cache)
    assert face.get("k") is None


def test_a_lease_of_before_the_outage_does_not_survive_an_invalidation_within(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    leases = Leases(cache, face.run)
    lease = leases.claim("k")
    redis_server.stop()
    face.delete("k")
    assert not leases.fill("k", "old", lease)
    within = leases.claim("k")
    redis_server.cont()
    back(cache)
    assert not leases.fill("k", "old", lease)
    assert not leases.fill("k", "old", within)
    assert face.get("k") is None


def test_leases_that_a_hung_redis_places_late_are_gone_after_the_outage(
    cache: ResilientCache, redis_server: RedisServer, server_client: redis.Redis
) -> None:
    def hang(result: int) -> int:
        # Counted for what is there, between the reading of all and the claims of the others.
        if found:
            redis_server.stop()
        return 1

    @cached_many(key_prefix="late", cost=hang)
    def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    found = False
    with default_alias(redis_server.url, KEY_PREFIX=cache.key_prefix):
        double([1])
        found = True
        assert double([1, 2, 3]) == [2, 4, 6]
        assert state(cache) == "memory"
        found = False
        redis_server.cont()
        back(cache)
    kept = [key for key in server_client.scan_iter() if b"double:" in key]
    assert kept == [cache.make_key("late:double:1").encode()]


def test_tags_invalidated_during_the_outage_stay_so(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    calls = 0
    renewing, proceed = threading.Event(), threading.Event()

    def count(name: str) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            renewing.set()
            proceed.wait(30)
        return calls

    tagged = cached(key_prefix="a", tags=["t"])(count)
    renewed = cached(key_prefix="b", tags=["t"], ttl=0.05, stale_ttl=600)(count)
    untouched = cached(key_prefix="c")(count)
    with default_alias(redis_server.url, KEY_PREFIX=cache.key_prefix):
        assert [tagged("x"), renewed("x")] == [1, 2]
        time.sleep(0.1)
        assert renewed("x") == 2
        assert renewing.wait(30)
        assert untouched("x") == 4
        redis_server.stop()
        # The first is sent to the hung server; the second it never hears of.
        invalidate_tags("t")
        invalidate_tags("t")
        assert state(cache) == "memory"
        assert [tagged("x"), tagged("x"), renewed("x")] == [5, 5, 6]
        redis_server.cont()
        back(cache)
        proceed.set()
        wait_for(lambda: not background.under_way, "the renewal of before the outage ends")
        assert [tagged("x"), renewed("x"), untouched("x")] == [7, 8, 4]


@pytest.mark.parametrize(
    ("break_it", "heal_it"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("CONFIG", "SET", "requirepass", "secret"), ("CONFIG", "SET", "requirepass", "")),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
        ),
    ],
    ids=["read-only", "out of memory", "password", "too few replicas"],
)
def test_a_redis_that_refuses(
    face: Any,
    cache: ResilientCache,
    server_client: redis.Redis,
    break_it: tuple[str, ...],
    heal_it: tuple[str, ...],
) -> None:
    face.set("k", "old")
    server_client.execute_command(*break_it)
    # Connections that were made before the password was demanded stay good.
    server_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    face.set("k", "new")
    assert face.get("k") == "new"
    assert state(cache) == "memory"
    server_client.execute_command(*heal_it)
    back(cache)
    assert face.get("k") is None
    face.set("k", "newest")
    assert server_client.exists(cache.make_key("k")) == 1


def test_each_change_is_logged_and_signalled_once(
    cache: ResilientCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []

    def receiver(**kwargs: Any) -> None:
        seen.append(kwargs)

    def failing(**kwargs: Any) -> None:
        raise RuntimeError("a receiver of the project's own")

    cache_state_changed.connect(receiver)
    cache_state_changed.connect(failing)
    try:
        with caplog.at_level(logging.INFO, logger="cache_layer"):
            redis_server.kill()
            for number in range(100):
                cache.set("k", number)
            redis_server.restart()
            back(cache)
            wait_for(lambda: len(seen) == 2, "both signals")
            for number in range(100):
                cache.set("k", number)
    finally:
        cache_state_changed.disconnect(receiver)
        cache_state_changed.disconnect(failing)
    assert [(kwargs["state"], bool(kwargs["reason"])) for kwargs in seen] == [
        ("memory", True),
        ("redis", False),
    ]
    assert all(kwargs["sender"] is ResilientCache for kwargs in seen)
    assert all(kwargs["since"].tzinfo is not None for kwargs in seen)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [".failing" in text for text in errors] == [True, True]
    changes = [record for record in caplog.records if record.levelno < logging.ERROR]
    assert [record.levelname for record in changes] == ["WARNING", "WARNING"]
    assert str(redis_server.port) in changes[0].getMessage()


def test_the_password_is_not_logged(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = redis_server.url.replace("redis://", "redis://user:hunter2@")
    cache = make_cache(url)
    with caplog.at_level(logging.INFO, logger="cache_layer"):
        cache.set("k", 1)
    assert state(cache) == "memory"
    assert "hunter2" not in caplog.text
    assert str(redis_server.port) in caplog.text
    cache.store.close()


def test_a_key_of_a_foreign_type_is_no_outage(
    face: Any, cache: ResilientCache, server_client: redis.Redis
) -> None:
    key = cache.make_key("k")
    server_client.rpush(key, "a list")
    assert face.get("k", "default") == "default"
    assert face.get_many(["k"]) == {}
    assert face.has_key("k")
    assert face.ttl("k") is None
    assert face.touch("k")
    assert not face.add("k", 1)
    with pytest.raises(ValueError, match="k"):
        face.incr("k")
    assert not Leases(cache, face.run).claim("k").owner
    assert state(cache) == "redis"
    assert face.delete("k")
    server_client.rpush(key, "a list")
    face.set("k", 1)
    assert face.get("k") == 1


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\x00", b"12a", b"-", b"--1", b"\x80\x04N."])
def test_foreign_bytes_are_a_miss(
    face: Any, cache: ResilientCache, server_client: redis.Redis, data: bytes
) -> None:
    server_client.set(cache.make_key("k"), data)
    assert face.get("k", "default") == "default"
    assert face.get_many(["k"]) == {}
    leases = Leases(cache, face.run)
    lease = leases.claim("k")
    assert lease.owner
    assert leases.fill("k", "value", lease)
    assert face.get("k") == "value"


def test_scripts_flushed_from_the_server_are_sent_again(
    face: Any, server_client: redis.Redis
) -> None:
    face.add("k", 1)
    server_client.script_flush()
    assert not face.add("k", 2)
    server_client.script_flush()
    assert face.incr("k") == 2
    server_client.script_flush()
    assert face.delete("k")


def test_a_server_that_was_demoted_and_promoted_again_is_not_believed(
    face: Any, cache: ResilientCache, server_client: redis.Redis
) -> None:
    face.set("k", "of before")
    # It may have missed what its primary was told meanwhile.
    server_client.replicaof("127.0.0.1", 1)
    server_client.replicaof("NO", "ONE")
    server_client.client_kill_filter(_type="normal", skipme=True)
    assert face.get("k") is None
    back(cache)
    assert face.get("k") is None


def test_a_busy_process_gets_back_to_redis(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    """Its journal is never empty when recovery looks."""
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            cache.set(f"k{number % 50}", number)
            cache.delete_pattern(f"p{number % 5}*")

    threads = [threading.Thread(target=write) for _ in range(4)]
    redis_server.kill()
    for thread in threads:
        thread.start()
    wait_for(lambda: state(cache) == "memory", "the outage is noticed")
    redis_server.restart()
    back(cache)
    done.set()
    for thread in threads:
        thread.join()
    assert state(cache) == "redis"


class Interrupted(SafeSerializer):
    """Something else happens to the key while its value is encoded."""

    meanwhile: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    def dumps(self, value: Any) -> bytes:
        type(self).meanwhile()
        return super().dumps(value)


def test_a_number_that_turns_into_something_else_meanwhile_is_not_added_to(
    redis_server: RedisServer, server_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{__name__}.{Interrupted.__name__}"
    cache = make_cache(redis_server.url, OPTIONS={"SERIALIZER": name})
    cache.set("n", 2**70)
    key = cache.make_key("n")

    def becomes_a_list() -> None:
        server_client.delete(key)
        server_client.rpush(key, "a list")

    monkeypatch.setattr(Interrupted, "meanwhile", staticmethod(becomes_a_list))
    with pytest.raises(ValueError, match="n"):
        cache.incr("n")
    assert server_client.lrange(key, 0, -1) == [b"a list"]
    assert state(cache) == "redis"
    cache.store.close()
