"""A million keys, patterns invalidated all the while, a hundred callers: nobody feels an outage."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import redis

from cache_layer.backends import ResilientCache
from cache_layer.conf import Settings
from tests.cache_layer.caches import close, make_cache, state, wait_for
from tests.faults.bystander import Bystander
from tests.model.history import Event, Invalidated, Read, stale_reads
from tests.services import RedisServer

KEYS = 1_000_000
#: Together a hundred callers.
THREADS = 46
LOOPS = 2
TASKS = 24
PATTERN_THREADS = 2
PATTERN_TASKS = 2
NUMBERS = 40
#: Seconds between two calls of a caller, on average.
PACE = 0.1

#: The longest that a call or an event loop may stand still, beside what the machine takes.
STILL = 0.05
#: The longest way back to Redis.
BACK = 2.0

FILL = """
for number = ARGV[2], ARGV[2] + 9999 do redis.call('SET', ARGV[1] .. number, number) end
"""


class Call(NamedTuple):
    what: str
    began: float
    seconds: float


class Callers:
    """A hundred threads and tasks that read, write and invalidate."""

    def __init__(self, cache: ResilientCache) -> None:
        self.cache = cache
        self.calls: list[Call] = []
        #: How late each event loop was.
        self.loops: list[Call] = []
        self.errors: list[BaseException] = []
        self.history: list[Event] = []
        self.patterns = itertools.count()
        self._database = [0] * NUMBERS
        self._locks = [threading.Lock() for _ in range(NUMBERS - PATTERN_TASKS * LOOPS)]
        self._done = threading.Event()
        works: list[Callable[[], None]] = [self._call] * THREADS
        works += [self._invalidate] * PATTERN_THREADS
        works += [
            lambda first=NUMBERS - (loop + 1) * PATTERN_TASKS: asyncio.run(self._loop(first))  # type: ignore[misc]
            for loop in range(LOOPS)
        ]
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait_for_calls(self, count: int) -> None:
        aim = len(self.calls) + count
        wait_for(lambda: self.errors or len(self.calls) >= aim, f"{count} calls")

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def _ways(self, number: int) -> list[tuple[str, tuple[Any, ...]]]:
        """Methods, and their arguments."""
        own = [f"m:{random.randrange(2000)}" for _ in range(5)]
        return [
            ("get", (f"n:{number}",)),
            ("set", (f"n:{number}", {"number": number})),
            ("delete", (f"n:{number}",)),
            ("get_many", ([f"k:{random.randrange(KEYS)}" for _ in range(20)],)),
            ("set_many", (dict.fromkeys(own, number),)),
        ]

    def _call(self) -> None:
        while not self._done.wait(random.random() * 2 * PACE):
            what, arguments = random.choice(self._ways(random.randrange(1000)))
            began = time.monotonic()
            getattr(self.cache, what)(*arguments)
            self._made(what, began)
            number = random.randrange(NUMBERS)
            began = time.monotonic()
            found = self.cache.get_or_set(f"v:{number}:", lambda n=number: self._database[n])
            self._made("get_or_set", began)
            self.history.append(Read(str(number), found, began))

    async def _acall(self) -> None:
        while not self._done.is_set():
            await asyncio.sleep(random.random() * 2 * PACE)
            what, arguments = random.choice(self._ways(random.randrange(1000)))
            began = time.monotonic()
            await getattr(self.cache, f"a{what}")(*arguments)
            self._made(f"a{what}", began)
            number = random.randrange(NUMBERS)
            began = time.monotonic()
            read: Awaitable[int] = self.cache.aget_or_set(
                f"v:{number}:", lambda n=number: self._database[n]
            )
            found = await read
            self._made("aget_or_set", began)
            self.history.append(Read(str(number), found, began))

    def _invalidate(self) -> None:
        while not self._done.wait(0.02):
            number = random.randrange(len(self._locks))
            with self._locks[number]:
                self._database[number] += 1
                began = time.monotonic()
                self.cache.delete_pattern(f"v:{number}:*")
                self._invalidated(number, began)
            began = time.monotonic()
            self.cache.delete_pattern(f"k:{random.randrange(KEYS // 10)}?")
            self._made("delete_pattern", began)

    async def _ainvalidate(self, number: int) -> None:
        while not self._done.is_set():
            await asyncio.sleep(0.02)
            self._database[number] += 1
            began = time.monotonic()
            await self.cache.adelete_pattern(f"v:{number}:*")
            self._invalidated(number, began)

    def _invalidated(self, number: int, began: float) -> None:
        self.history.append(Invalidated(str(number), self._database[number], time.monotonic()))
        self._made("delete_pattern", began)

    def _made(self, what: str, began: float) -> None:
        self.calls.append(Call(what, began, time.monotonic() - began))
        if what == "delete_pattern":
            next(self.patterns)

    async def _loop(self, first: int) -> None:
        invalidations = [self._ainvalidate(first + number) for number in range(PATTERN_TASKS)]
        await asyncio.gather(self._look(), *invalidations, *[self._acall() for _ in range(TASKS)])

    async def _look(self) -> None:
        pause = 0.005
        while not self._done.is_set():
            began = time.monotonic()
            await asyncio.sleep(pause)
            self.loops.append(Call("event loop", began, time.monotonic() - began - pause))


@pytest.fixture
def cache(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> Iterator[ResilientCache]:
    caplog.set_level(logging.CRITICAL, logger="cache_layer")
    cache = make_cache(redis_server.url, KEY_PREFIX="million")
    with redis.Redis.from_url(redis_server.url, socket_timeout=60) as client:
        fill = client.register_script(FILL)
        for first in range(0, KEYS, 10_000):
            fill(args=[cache.make_key("k:"), first])
        assert client.dbsize() >= KEYS
    yield cache
    close(cache)


def resident() -> int:
    """The megabytes of this process in memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") >> 20


def test_nobody_feels_an_outage_of_a_redis_with_a_million_keys(
    redis_server: RedisServer, cache: ResilientCache, record_property: Any
) -> None:
    memory = cache.store.memory
    with Bystander([os.getpid(), redis_server.pid]) as bystander:
        with Callers(cache) as callers:
            callers.wait_for_calls(2000)
            wait_for(lambda: state(cache) == "redis", "a busy machine is over")
            before = resident()
            broken = time.monotonic()
            redis_server.stop()
            wait_for(lambda: state(cache) == "memory", "the cache answers from memory")
            opened = cache.store.breaker.since - time.time() + time.monotonic()
            # More than memory may hold.
            for number in range(2000):
                cache.set(f"large:{number}", "x" * 40_000)
            filled, grown = memory.bytes, resident() - before
            callers.wait_for_calls(2000)
            remembered = len(cache.store.circuit.journal)
            healed = time.monotonic()
            redis_server.cont()
            wait_for(lambda: state(cache) == "redis", "Redis answers again")
            back = Call("recovery", healed, time.monotonic() - healed)
            callers.wait_for_calls(1000)
            over = time.monotonic()
        assert cache.get("large:1") is None
        with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
            kept = client.dbsize()

    def own(call: Call) -> float:
        return call.seconds - bystander.machines_part(call.began, call.seconds)

    calls = [call for call in callers.calls if broken - 1 < call.began < over]
    # The scan of a million keys is the work of those who ask for it.
    calls = [call for call in calls if call.what != "delete_pattern"]
    caught = [call for call in calls if call.began <= opened <= call.began + call.seconds]
    others = [call for call in calls if not call.began <= opened <= call.began + call.seconds]
    loops = [call for call in callers.loops if broken < call.began < over]
    stale = stale_reads(callers.history)
    delays = [seconds for when, seconds in bystander.delays if broken < when < over]
    for name, value in {
        "fault": "hung, a million keys",
        "calls": len(calls),
        "trips": 1,
        "caught": len(caught),
        "longest": longest(caught),
        "others": longest(others),
        "slow": sum(call.seconds > STILL for call in others),
        "bystander": round(max(delays) * 1000),
        "recovery": round(back.seconds * 1000),
        "stale": len(stale),
        "errors": len(callers.errors),
    }.items():
        record_property(name, value)
    still = max(others, key=own)
    latest = max(loops, key=own)
    print(
        f"\na million keys, a hundred callers, {next(callers.patterns)} patterns, {remembered} "
        f"entries in the journal, {kept:,} keys kept; memory held {filled >> 20} MB, the process "
        f"grew by {grown} MB\nbeside the machine's part in ms: a call ({still.what}) "
        f"{own(still) * 1000:.0f}, an event loop {own(latest) * 1000:.0f} (of "
        f"{longest(loops)}), recovery {own(back) * 1000:.0f} (of {back.seconds * 1000:.0f})"
    )
    assert callers.errors == []
    assert stale == []
    assert filled <= Settings.MEMORY_MAX_BYTES
    # What nobody invalidated is still there.
    assert kept > KEYS * 0.9
    assert own(still) <= STILL
    assert own(latest) <= STILL
    assert max(map(own, caught), default=0) <= Settings.OPERATION_TIMEOUT + STILL
    assert own(back) <= BACK


def longest(calls: list[Call]) -> int:
    """In milliseconds."""
    return round(max((call.seconds for call in calls), default=0) * 1000)
