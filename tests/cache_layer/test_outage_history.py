"""Readers and writers under faults: whatever was invalidated is never read again."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.services import RedisServer

KEYS = 8


class History:
    """A database of counters behind a cache, and what readers saw of it."""

    def __init__(self, cache: ResilientCache) -> None:
        self.cache = cache
        self.done = threading.Event()
        self.database = [0] * KEYS
        #: The number that was current when the last finished invalidation of the key began.
        self.invalidated = [0] * KEYS
        self.stale: list[tuple[str, int, int]] = []
        self.errors: list[Exception] = []
        self.reads = 0
        self._locks = [threading.Lock() for _ in range(KEYS)]

    def write(self) -> None:
        while not self.done.is_set():
            number = random.randrange(KEYS)
            with self._locks[number]:
                self.database[number] += 1
                value = self.database[number]
                random.choice(
                    [
                        lambda key: self.cache.delete(key),
                        lambda key: self.cache.delete_many([key]),
                        lambda key: self.cache.delete_pattern(f"{key}*"),
                        lambda key, value=value: self.cache.set(key, value),
                    ]
                )(f"k{number}")
                self.invalidated[number] = value
            time.sleep(random.random() / 300)

    def read(self) -> None:
        while not self.done.is_set():
            number = random.randrange(KEYS)

            def compute(number: int = number) -> int:
                value = self.database[number]
                time.sleep(random.random() / 500)
                return value

            least = self.invalidated[number]
            self._seen(number, least, self.cache.get_or_set(f"k{number}", compute))
            least = self.invalidated[number]
            self._seen(number, least, self.cache.get(f"k{number}"))

    async def read_awaited(self) -> None:
        async def reader() -> None:
            while not self.done.is_set():
                number = random.randrange(KEYS)

                async def compute(number: int = number) -> int:
                    value = self.database[number]
                    await asyncio.sleep(random.random() / 500)
                    return value

                least = self.invalidated[number]
                self._seen(number, least, await self.cache.aget_or_set(f"k{number}", compute))
                least = self.invalidated[number]
                self._seen(number, least, await self.cache.aget(f"k{number}"))

        await asyncio.gather(*[reader() for _ in range(4)])

    def _seen(self, number: int, least: int, value: int | None) -> None:
        self.reads += 1
        if value is not None and value < least:
            self.stale.append((f"k{number}", least, value))


@pytest.mark.slow
def test_no_stale_read_under_kills_and_hangs(redis_server: RedisServer) -> None:
    cache = make_cache(redis_server.url)
    history = History(cache)

    def guarded(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001
            history.errors.append(error)

    works = [history.write] * 2 + [history.read] * 2
    works.append(lambda: asyncio.run(history.read_awaited()))
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for round_ in range(8):
        time.sleep(random.uniform(0.1, 0.5))
        if round_ % 2:
            redis_server.stop()
            time.sleep(random.uniform(0.1, 0.8))
            redis_server.cont()
        else:
            redis_server.kill()
            time.sleep(random.uniform(0, 0.4))
            redis_server.restart()
        seen = history.reads
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        wait_for(lambda seen=seen: history.reads > seen + 100, "reads go on")
    history.done.set()
    for thread in threads:
        thread.join()
    cache.state.close()
    assert history.errors == []
    assert history.stale == []
