"""The cache against raw redis-py, django-redis and Django's own Redis backend, in one run.

    make bench-cache [ARGS="--rounds 2000"]

Starts a redis-server of its own on a free local port and ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from tests.services import RedisServer

VALUE = "x" * 200
BATCH = [f"key:{n}" for n in range(100)]


def configure(url: str) -> None:
    os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0" * 50)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django
    from django.conf import settings

    settings.CACHES = {
        "default": {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": url},
        "memory": {"BACKEND": "cache_layer.backends.ResilientCache"},
        "django-redis": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": url,
            "KEY_PREFIX": "dr",
        },
        "django": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": url,
            "KEY_PREFIX": "dj",
        },
        "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    django.setup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    server = RedisServer()
    server.start()
    try:
        configure(server.url)
        measure_all(server, options.rounds)
    finally:
        server.close()


def measure_all(server: RedisServer, rounds: int) -> None:
    from django.core.cache import caches

    from benchmarks.measure import table, take_turns
    from cache_layer import cached

    raw = redis.Redis.from_url(server.url)
    raw_async = redis.asyncio.Redis.from_url(server.url, max_connections=1000)
    raw.set("raw", VALUE)
    raw.mset(dict.fromkeys(BATCH, VALUE))
    names = ("default", "django-redis", "django", "memory", "locmem")
    for name in names:
        caches[name].set("key", VALUE)
        caches[name].set_many(dict.fromkeys(BATCH, VALUE))
    ours = caches["default"]

    @cached(ttl=600)
    def decorated(number: int) -> str:
        return VALUE

    @cached(ttl=600)
    async def decorated_async(number: int) -> str:
        return VALUE

    loop = asyncio.new_event_loop()

    def awaited(call: Callable[[], Awaitable[Any]], times: int = 20) -> Callable[[], Any]:
        async def several() -> None:
            for _ in range(times):
                await call()

        return lambda: loop.run_until_complete(several())

    def at_once(call: Callable[[], Awaitable[Any]]) -> Callable[[], Any]:
        async def together() -> None:
            await asyncio.gather(*(call() for _ in range(100)))

        return lambda: loop.run_until_complete(together())

    def show(title: str, contestants: dict[str, Callable[[], Any]], floor: str, n: int) -> None:
        print(table(title, take_turns(contestants, rounds=n), floor=floor), flush=True)

    def twenty(call: Callable[[], Any]) -> Callable[[], None]:
        def several() -> None:
            for _ in range(20):
                call()

        return several

    show(
        "20 gets of 200 bytes",
        {
            "raw redis-py": twenty(lambda: raw.get("raw")),
            **{name: twenty(lambda c=caches[name]: c.get("key")) for name in names},
            "@cached hit": twenty(lambda: decorated(1)),
            "raw redis.asyncio": awaited(lambda: raw_async.get("raw")),
            "default, aget": awaited(lambda: ours.aget("key")),
            "django-redis, aget": awaited(lambda: caches["django-redis"].aget("key")),
            "django, aget": awaited(lambda: caches["django"].aget("key")),
            "@cached hit, awaited": awaited(lambda: decorated_async(1)),
        },
        "raw redis-py",
        rounds,
    )
    show(
        "20 sets of 200 bytes",
        {
            "raw redis-py": twenty(lambda: raw.set("raw", VALUE, ex=300)),
            **{name: twenty(lambda c=caches[name]: c.set("key", VALUE)) for name in names},
            "default, aset": awaited(lambda: ours.aset("key", VALUE)),
            "django-redis, aset": awaited(lambda: caches["django-redis"].aset("key", VALUE)),
        },
        "raw redis-py",
        rounds,
    )
    show(
        "100 keys in one call",
        {
            "raw MGET": lambda: raw.mget(BATCH),
            **{name: lambda c=caches[name]: c.get_many(BATCH) for name in names},
            "default, aget_many": awaited(lambda: ours.aget_many(BATCH), 1),
            "django-redis, aget_many": awaited(lambda: caches["django-redis"].aget_many(BATCH), 1),
            "default, set_many": lambda: ours.set_many(dict.fromkeys(BATCH, VALUE)),
            "django-redis, set_many": lambda: caches["django-redis"].set_many(
                dict.fromkeys(BATCH, VALUE)
            ),
        },
        "raw MGET",
        max(10, rounds // 4),
    )
    show(
        "100 concurrent awaited gets",
        {
            "raw redis.asyncio": at_once(lambda: raw_async.get("raw")),
            "default": at_once(lambda: ours.aget("key")),
            "django-redis": at_once(lambda: caches["django-redis"].aget("key")),
        },
        "raw redis.asyncio",
        max(10, rounds // 10),
    )
    loop.run_until_complete(raw_async.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    outage(server, ours)


def outage(server: RedisServer, ours: Any) -> None:
    """How long calls take when the server stops answering, and until it is used again."""
    print("\n### Redis hung (SIGSTOP)\n\n| | ms |\n|---|---|")
    server.stop()
    times = []
    for _ in range(1000):
        before = time.perf_counter()
        ours.get("key")
        times.append((time.perf_counter() - before) * 1e3)
    server.cont()
    healed = time.perf_counter()
    while ours.get("key") != VALUE and time.perf_counter() < healed + 10:
        time.sleep(0.01)
    print(f"| first call | {times[0]:.1f} |\n| slowest after the second | {max(times[2:]):.3f} |")
    print(f"| median | {sorted(times)[500]:.4f} |")
    print(f"| back on Redis after healing | {(time.perf_counter() - healed) * 1e3:.0f} |")


if __name__ == "__main__":
    main()
