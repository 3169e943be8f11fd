"""Real faults under a mixed load: nothing raises, nothing waits, nothing stale is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Awaited, make_cache, state, wait_for
from tests.faults.load import Load
from tests.faults.proxy import Fault, Proxy
from tests.services import RedisServer


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="cache_layer")


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A connection of before the fault."""
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        client.ping()
        yield client


class Scenario:
    """One fault, from a healthy Redis and back."""

    def __init__(self, name: str, cache: ResilientCache, record: Callable[[str, Any], None]):
        self._name = name
        self._cache = cache
        self._record = record

    def run(
        self,
        break_it: Callable[[], object],
        heal_it: Callable[[], object],
        afterwards: Callable[[], object] = lambda: None,
        *,
        rounds: int = 2,
        trips: bool = True,
    ) -> None:
        recoveries = []
        with Load(self._cache) as load:
            # The start of the load may trip a busy machine; the fault begins after that.
            load.wait_for_calls()
            load.wait_for_state("redis")
            before = len(load.changes)
            for _ in range(rounds):
                break_it()
                if trips:
                    load.wait_for_state("memory")
                load.wait_for_calls()
                time.sleep(0.3)
                heal_it()
                recoveries.append(load.wait_for_state("redis"))
                load.wait_for_calls()
            afterwards()
            load.wait_for_calls()
        self._cache.store.close()
        load.check(self._record, self._name, max(recoveries))
        if trips:
            assert [what for _, what in load.changes[before:]][:2] == ["memory", "redis"]


def scenario(name: str, url: str, record: Callable[[str, Any], None]) -> Scenario:
    return Scenario(name, make_cache(url), record)


def test_killed_and_restarted_empty(redis_server: RedisServer, record_property: Any) -> None:
    scenario("killed, restarted empty", redis_server.url, record_property).run(
        redis_server.kill, redis_server.restart
    )


def test_calls_go_on_while_redis_is_stopped(
    redis_server: RedisServer, record_property: Any
) -> None:
    scenario("stopped (SIGSTOP)", redis_server.url, record_property).run(
        redis_server.stop, redis_server.cont, rounds=3
    )


SETTINGS = {
    "read-only (replica)": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "read-only (too few replicas)": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "memory full, noeviction": (
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "SET", "maxmemory", "0"),
    ),
    "wrong password": (
        ("CONFIG", "SET", "requirepass", "secret"),
        ("CONFIG", "SET", "requirepass", ""),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_calls_go_on_while_redis_refuses(
    redis_server: RedisServer, admin: redis.Redis, name: str, record_property: Any
) -> None:
    break_it, heal_it = SETTINGS[name]

    def refuse() -> None:
        admin.execute_command(*break_it)
        # Connections of before the password was demanded stay good.
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    scenario(name, redis_server.url, record_property).run(
        refuse, lambda: admin.execute_command(*heal_it)
    )


@pytest.mark.parametrize(
    ("name", "fault", "seconds"),
    [
        ("accepts and never answers", "silent", 0.0),
        ("replies cut in the middle", "cut", 0.0),
        ("a web server answers", "garbage", 0.0),
        ("replies 600 ms late", "delay", 0.6),
    ],
)
def test_behind_a_proxy(
    proxy: Proxy, name: str, fault: Fault, seconds: float, record_property: Any
) -> None:
    def spoil() -> None:
        proxy.seconds = seconds
        proxy.fault = fault

    def heal() -> None:
        proxy.fault = "none"

    scenario(name, proxy.url, record_property).run(spoil, heal)


def test_replies_late_but_within_the_timeout(proxy: Proxy, record_property: Any) -> None:
    """Every reply comes in time, but a call of several replies takes too long."""

    def spoil() -> None:
        proxy.seconds = 0.17
        proxy.fault = "delay"

    def heal() -> None:
        proxy.fault = "none"

    scenario("replies 170 ms late", proxy.url, record_property).run(spoil, heal)


def test_commands_delivered_after_the_outage(proxy: Proxy, record_property: Any) -> None:
    """A network that was cut delivers what was sent into it when everybody goes on."""

    def spoil() -> None:
        proxy.fault = "hold"

    def heal() -> None:
        proxy.fault = "none"

    scenario("commands delivered late", proxy.url, record_property).run(
        spoil, heal, proxy.deliver, rounds=1
    )


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_write_delivered_late_does_nothing(proxy: Proxy, wrap: Any) -> None:
    cache = make_cache(proxy.url)
    face = wrap(cache)
    face.set("k", "first")
    proxy.fault = "hold"
    face.set("k", "late")
    proxy.fault = "none"
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    face.set("k", "new")
    proxy.deliver()
    for _ in range(20):
        assert face.get("k") == "new"
        time.sleep(0.02)
    cache.store.close()
