"""One deadline a call, whatever the server, the network and the event loop do."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Awaited, close, make_cache, state, wait_for
from tests.faults.proxy import Proxy
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(proxy: Proxy) -> Iterator[ResilientCache]:
    cache = make_cache(proxy.url)
    yield cache
    close(cache)


def test_a_reply_that_trickles_is_an_outage(
    face: Any, cache: ResilientCache, proxy: Proxy, redis_server: RedisServer
) -> None:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        client.set(cache.make_key("k"), 10**17)
    assert face.get("k") == 10**17
    proxy.fault, proxy.seconds = "trickle", 0.1
    assert face.get("k") is None
    assert state(cache) == "memory"


def test_setting_a_connection_up_counts_in(face: Any, cache: ResilientCache, proxy: Proxy) -> None:
    proxy.fault, proxy.seconds = "delay", 0.2
    assert face.get("k") is None
    assert state(cache) == "memory"
    proxy.fault = "none"
    wait_for(lambda: state(cache) == "redis", "Redis answers again")


def test_a_name_that_is_not_resolved_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    asked = threading.Event()

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.set()
        released.wait(30)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    cache = make_cache("redis://redis.invalid:6379/0")
    try:
        assert cache.get("k", "default") == "default"
        assert asked.is_set()
        assert not released.is_set()
        assert state(cache) == "memory"
    finally:
        released.set()
        close(cache)


def test_a_large_value_on_a_slow_link_is_no_outage(
    face: Any, cache: ResilientCache, proxy: Proxy
) -> None:
    value = random.randbytes(1_500_000)
    face.set("small", 1)
    proxy.fault = "slow"
    face.set("large", value)
    assert state(cache) == "redis"
    assert face.get("large") == value
    assert face.get_many(["large", "small"]) == {"large": value, "small": 1}
    assert state(cache) == "redis"


READS: dict[str, tuple[Callable[[Any], object], object]] = {
    "get": (lambda face: face.get("k"), None),
    "get_many": (lambda face: face.get_many(["k"]), {}),
    "has_key": (lambda face: face.has_key("k"), False),
    "ttl": (lambda face: face.ttl("k"), 0),
    "keys": (lambda face: face.keys("k*"), []),
    # It has a twin that is not awaited but iterated over.
    "iter_keys": (lambda face: [*getattr(face, "_cache", face).iter_keys("k*")], []),
}


@pytest.mark.parametrize(("read", "miss"), READS.values(), ids=READS)
def test_a_read_that_loses_its_connection_is_a_miss_and_no_outage(
    face: Any,
    cache: ResilientCache,
    proxy: Proxy,
    read: Callable[[Any], object],
    miss: object,
) -> None:
    face.set("k", 1)
    proxy.refuse = (b"",)
    assert read(face) == miss
    assert state(cache) == "redis"
    proxy.refuse = ()
    assert read(face) != miss
    assert face.get("k") == 1


@pytest.fixture
def patient(proxy: Proxy) -> Iterator[ResilientCache]:
    """Waits a second for each reply, of which a test takes a good part."""
    seconds = {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
    cache = make_cache(proxy.url, OPTIONS=seconds)
    yield cache
    close(cache)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_call_of_many_round_trips_may_take_as_long_as_they_do(
    kind: str, patient: ResilientCache, proxy: Proxy
) -> None:
    face: Any = patient if kind == "sync" else Awaited(patient)
    face.set_many({f"k{number}": number for number in range(100)})
    proxy.fault, proxy.seconds = "delay", 0.25
    assert face.delete_pattern("k*", itersize=10) == 100
    assert state(patient) == "redis"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_call_of_a_few_slow_round_trips_is_an_outage(
    kind: str, patient: ResilientCache, proxy: Proxy
) -> None:
    face: Any = patient if kind == "sync" else Awaited(patient)
    # Adding to a number beyond 64 bits takes three.
    face.set("n", 2**70)
    proxy.fault, proxy.seconds = "delay", 0.8
    with pytest.raises(ValueError, match="n"):
        face.incr("n")
    assert state(patient) == "memory"


async def test_a_silent_redis_is_given_up_as_soon_by_an_awaited_call_as_by_a_blocking_one(
    patient: ResilientCache, proxy: Proxy
) -> None:
    other = make_cache(proxy.url.replace("/0", "/1"), OPTIONS=patient._params["OPTIONS"])
    other.set("k", 1)
    await patient.aset("k", 1)
    proxy.fault = "silent"

    async def seconds(call: Awaitable[object]) -> float:
        began = time.monotonic()
        assert await call is None
        return time.monotonic() - began

    awaited, blocking = await asyncio.gather(
        seconds(patient.aget("k")), seconds(asyncio.to_thread(other.get, "k"))
    )
    assert state(patient) == state(other) == "memory"
    assert awaited < 1.5 * blocking
    close(other)


async def test_a_loop_that_is_busy_while_it_connects_is_no_outage(cache: ResilientCache) -> None:
    for number in range(3):
        calls = [asyncio.ensure_future(cache.aset(f"k{number}:{each}", each)) for each in range(20)]
        # At each step of connecting once.
        for _ in range(number + 1):
            await asyncio.sleep(0)
        time.sleep(0.6)
        await asyncio.gather(*calls)
        assert await cache.aget(f"k{number}:7") == 7
        assert state(cache) == "redis"
        cache.store.breaker.epoch += 1
