"""The connection that all tasks of an event loop share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis
from redis.exceptions import InvalidResponse

from cache_layer.backends import ResilientCache
from cache_layer.backends.redis.errors import RedisUnavailableError
from cache_layer.backends.redis.multiplexer import MultiplexedConnection
from cache_layer.backends.redis.resp import make_reader
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.services import RedisServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    cache = make_cache(redis_server.url)
    yield cache
    cache.store.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        yield client


def others(client: redis.Redis) -> list[dict[str, Any]]:
    own = client.client_id()
    return [found for found in client.client_list() if int(found["id"]) != own]


async def test_ten_thousand_calls_at_once_share_one_connection(
    cache: ResilientCache, client: redis.Redis, default_timeouts: None
) -> None:
    await cache.aset_many({f"k{number}": number for number in range(100)})

    async def use(number: int) -> Any:
        if number % 10:
            return await cache.aget(f"k{number % 100}")
        return (await cache.aget_many([f"k{number % 100}", "none"]))[f"k{number % 100}"]

    results = await asyncio.gather(*map(use, range(10_000)))
    assert results == [number % 100 for number in range(10_000)]
    assert state(cache) == "redis"
    assert len(others(client)) == 1


async def test_what_a_busy_loop_reads_late_is_not_redis_being_late(
    cache: ResilientCache, default_timeouts: None
) -> None:
    value = "x" * 10_000
    await cache.aset("k", value)
    calls = [asyncio.ensure_future(cache.aget("k")) for _ in range(500)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.6)
    assert await asyncio.gather(*calls) == [value] * 500
    assert state(cache) == "redis"


async def test_a_reply_that_lies_there_is_read_before_it_is_missed(
    cache: ResilientCache, default_timeouts: None
) -> None:
    await cache.aset("k", 1)
    call = asyncio.ensure_future(cache.aget("k"))
    # In one turn of the loop: the call is sent, the loop is busy, and it is looked who is late.
    asyncio.get_running_loop().call_soon(time.sleep, 0.4)
    time.sleep(0.3)
    assert await call == 1
    assert state(cache) == "redis"


async def test_a_loop_that_is_busy_turn_after_turn_does_not_make_redis_late(
    cache: ResilientCache, default_timeouts: None
) -> None:
    value = "x" * 10_000
    await cache.aset("k", value)
    for _ in range(2):
        calls = [asyncio.ensure_future(cache.aget("k")) for _ in range(300)]
        await asyncio.sleep(0)
        for _ in range(4):
            time.sleep(0.3)
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [value] * 300
    assert state(cache) == "redis"


class Clock:
    """The clock of a loop, which the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> mock.Mock:
        self.timers.append((when, callback))
        return mock.Mock()

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, callback in due:
            callback()


@pytest.mark.parametrize(
    ("pieces", "comes"), [(39, True), (80, False), (0, False)], ids=["slow", "drips", "silent"]
)
async def test_how_long_a_reply_is_waited_for(pieces: int, comes: bool) -> None:
    connection = mock.Mock()
    connection._writer.transport.is_closing.return_value = False
    connection = MultiplexedConnection(connection, 0.25, lambda: None, lambda connection: None)
    clock = Clock()
    connection._loop = clock  # type: ignore[assignment]
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    connection.write(future, b"")
    reply = b"$%d\r\n" % pieces + b"x" * pieces + b"\r\n"
    clock.move(0.005)
    for number in range(100):
        if pieces and number < len(reply) and not future.done():
            connection.data_received(reply[number : number + 1])
        for _ in range(10):
            clock.move(0.001)
    if comes:
        assert await future == b"x" * pieces
    else:
        with pytest.raises(RedisUnavailableError):
            await future


async def test_large_and_small_values_come_back_right(cache: ResilientCache) -> None:
    large = {f"large{number}": random.randbytes(8_000_000) for number in range(3)}
    await asyncio.gather(*[cache.aset(key, value) for key, value in large.items()])
    small = {f"small{number}": number for number in range(200)}
    await cache.aset_many(small)
    every = {**small, **large}
    keys = list(every) * 2
    random.shuffle(keys)
    assert await asyncio.gather(*map(cache.aget, keys)) == [every[key] for key in keys]


async def test_no_reply_reaches_another_caller_whatever_is_cancelled(
    cache: ResilientCache, client: redis.Redis
) -> None:
    await cache.aset_many({f"k{number}": number for number in range(200)})

    async def use(number: int) -> None:
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.random() / 100):
                    assert await cache.aget(f"k{number}") == number
                    found = await cache.aget_many([f"k{number}", f"k{number + 1}"])
                    assert found == {f"k{number}": number, f"k{number + 1}": number + 1}
                    assert await cache.aincr(f"k{number}", 0) == number

    await asyncio.gather(*map(use, range(199)))
    assert state(cache) == "redis"
    assert len(others(client)) == 1


async def test_a_connection_that_ended_meanwhile_is_replaced_unnoticed(
    cache: ResilientCache, client: redis.Redis
) -> None:
    await cache.aset("k", 1)
    for _ in range(3):
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.05)
        assert await cache.aget("k") == 1
    assert state(cache) == "redis"


async def test_calls_that_wait_for_a_hung_redis_end_together(
    cache: ResilientCache, redis_server: RedisServer, default_timeouts: None
) -> None:
    await cache.aset("k", 1)
    redis_server.stop()
    before = time.monotonic()
    results = await asyncio.gather(*[cache.aget("k") for _ in range(3000)])
    assert time.monotonic() - before < 5
    assert results == [None] * 3000
    assert state(cache) == "memory"
    redis_server.cont()
    while state(cache) == "memory":
        await asyncio.sleep(0.02)
    assert await cache.aget("k") == 1


async def test_the_connection_of_before_an_outage_is_not_used_after_it(
    cache: ResilientCache, client: redis.Redis
) -> None:
    await cache.aset("k", 1)
    before = {found["id"] for found in others(client)}
    # Another thread's call found out; this loop's connection has nothing to say for itself.
    cache.store.breaker.failure("told by the test", decisive=True)
    cache.store.breaker.close()
    assert await cache.aget("k") == 1
    wait_for(lambda: not before & {found["id"] for found in others(client)}, "it is closed")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loops_that_end_without_a_word_leave_no_connection(
    cache: ResilientCache, client: redis.Redis
) -> None:
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cache.aset("k", 1))
        loop.close()
    asyncio.run(cache.aset("k", 1))
    del loop
    gc.collect()
    wait_for(lambda: not others(client), "only this connection is left")


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer("--unixsocket", str(path))
    server.start()
    cache = make_cache(f"unix://{path}?db=3")
    try:
        asyncio.run(cache.aset("k", 1))
        assert cache.get("k") == 1
    finally:
        cache.store.close()
        server.close()


@pytest.mark.parametrize(
    "data", [b"\r\n", b"$abc\r\n", b"*x\r\n", b":1.5\r\n", b"HTTP/1.1 400\r\n"]
)
def test_bytes_that_are_not_redis_protocol_are_refused(data: bytes) -> None:
    reader = make_reader()
    reader.feed(data)
    with pytest.raises(InvalidResponse):
        reader.gets()


async def test_a_call_that_the_circuit_kept_from_redis_does_not_open_it_again(
    cache: ResilientCache, default_timeouts: None
) -> None:
    circuit = cache.store.circuit

    async def open_the_circuit() -> None:
        circuit.breaker.failure("for a moment", decisive=True)
        asyncio.get_running_loop().call_soon(circuit.breaker.close)

    await cache.aset("k", 0)
    # After calls that came together, one waits for the end of the turn. None is on its way then,
    # whose outcome would not be known.
    await asyncio.gather(*[cache.aset(key, 1) for key in "klm"])
    await asyncio.gather(cache.aset("other", 2), open_the_circuit())
    assert circuit.breaker.closed
    assert circuit.breaker.failed == 0
