"""The near cache: hits, how soon the changes of others are seen, and what news costs.

    python -m benchmarks.near

Starts a redis-server of its own on a free local port and ends it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from tests.services import RedisServer

CALLS = 2_000
TURNS = 50
ENTRIES = 10_000


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        configure(server.url)
        measure(redis.Redis.from_url(server.url))
    finally:
        server.close()


def configure(url: str) -> None:
    os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0" * 50)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django
    from django.conf import settings

    settings.CACHES = {
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": url,
            "KEY_PREFIX": "near",
            "OPTIONS": {"NEAR_CACHE": {"max_entries": ENTRIES + 10}},
        }
    }
    django.setup()


def measure(client: redis.Redis) -> None:
    from django.core.cache import caches

    from cache_layer import cached

    cache: Any = caches["default"]
    near = cache.state.near

    @cached(ttl=600)
    def text(number: int) -> str:
        return "x" * 200

    @cached(ttl=600)
    def items(number: int) -> list[int]:
        return list(range(10))

    @cached(ttl=600)
    async def awaited(number: int) -> str:
        return "x" * 200

    @functools.lru_cache
    def plain(number: int) -> str:
        return "x" * 200

    cache.get("text")
    while not near.on:
        time.sleep(0.01)
    cache.set_many({"text": "x" * 200, "list": list(range(10))})
    print("\n### Hits\n\n| | µs of CPU |\n|---|---|")
    hits: dict[str, Callable[[], Any]] = {
        "functools.lru_cache": lambda: plain(1),
        "get, text of 200 bytes": lambda: cache.get("text"),
        "get, list of 10": lambda: cache.get("list"),
        "@cached, positional": lambda: text(1),
        "@cached, keyword": lambda: text(number=1),
        "@cached, list of 10": lambda: items(1),
    }
    for name, call in hits.items():
        print(f"| {name} | {best(call):.2f} |")
    for name, acall in {
        "aget, text of 200 bytes": lambda: cache.aget("text"),
        "@cached, awaited": lambda: awaited(1),
    }.items():
        print(f"| {name} | {asyncio.run(abest(acall)):.2f} |")

    delays = []
    for number in range(2000):
        cache.get("text")
        if not near.find([cache.make_key("text")]):
            cache.get("text")
        client.set(cache.make_key("text"), b"%d" % number)
        written = time.perf_counter()
        while near.find([cache.make_key("text")]):
            time.sleep(0)
        delays.append((time.perf_counter() - written) * 1e3)
    delays.sort()
    print("\n### A foreign write is seen\n\n| | ms after its reply |\n|---|---|")
    print(f"| median | {statistics.median(delays):.2f} |")
    print(f"| p99 | {delays[int(len(delays) * 0.99)]:.2f} |\n| longest | {delays[-1]:.2f} |")

    keys = [f"k{number}" for number in range(ENTRIES)]
    cache.set_many(dict.fromkeys(keys, "x"))
    for key in keys:
        cache.get(key)
    full = [cache.make_key(key) for key in keys]
    held = len(near)
    before = time.thread_time()
    for key in full:
        near.drop((key,))
    seconds = time.thread_time() - before
    print(f"\n### News\n\n| | |\n|---|---|\n| copies held | {held} |")
    print(f"| dropping one, µs | {seconds / ENTRIES * 1e6:.2f} |")
    cache.state.close()


def best(call: Callable[[], Any]) -> float:
    times = []
    call()
    for _ in range(TURNS):
        before = time.thread_time()
        for _ in range(CALLS):
            call()
        times.append((time.thread_time() - before) / CALLS * 1e6)
    return min(times)


async def abest(call: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(3):
        await call()
    for _ in range(TURNS):
        before = time.thread_time()
        for _ in range(CALLS):
            await call()
        times.append((time.thread_time() - before) / CALLS * 1e6)
    return min(times)


if __name__ == "__main__":
    main()
