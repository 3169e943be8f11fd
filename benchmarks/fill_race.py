"""Invalidations against computations of another process: how often the old value stays.

    python -m benchmarks.fill_race [--tries 1000]

A reader process misses, reads the database and stores what it computed; meanwhile this process
changes the database and invalidates. A try is stale when a read that begins after both are done
returns the old value. Starts a redis-server of its own on a free local port and ends it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import redis

from tests.services import RedisServer

#: Reads a key through the cache; invalidates it.
Way = tuple[Callable[[str], Any], Callable[[str], Any]]


def ways(url: str) -> dict[str, Way]:
    from django.core.cache import caches

    from cache_layer import cache_invalidate, cached, invalidate_tags

    database = redis.Redis.from_url(url)

    def compute(key: str) -> Any:
        value = database.get(f"database:{key}")
        time.sleep(random.random() / 500)
        return value

    def stored(alias: str) -> Way:
        cache = caches[alias]
        return lambda key: cache.get_or_set(key, lambda: compute(key), 300), cache.delete

    by_call = cached(ttl=300, key_prefix="call")(compute)
    by_tag = cached(ttl=300, key_prefix="tag", tags=["of {key}"])(compute)
    by_pattern = cached(ttl=300, key_prefix="pattern")(compute)
    stale = cached(ttl=0.001, stale_ttl=300, key_prefix="stale", tags=["of {key}"])(compute)

    @cache_invalidate("pattern:*:{key}")
    def change(key: str) -> None: ...

    return {
        "django-redis: get_or_set, delete": stored("django-redis"),
        "Django's Redis backend: get_or_set, delete": stored("django"),
        "cache_layer: get_or_set, delete": stored("default"),
        "cache_layer: @cached, .invalidate()": (by_call, by_call.invalidate),
        "cache_layer: @cached, invalidate_tags": (by_tag, lambda key: invalidate_tags(f"of {key}")),
        "cache_layer: @cached, @cache_invalidate(pattern)": (by_pattern, change),
        "cache_layer: @cached(stale_ttl), invalidate_tags": (
            stale,
            lambda key: invalidate_tags(f"of {key}"),
        ),
    }


def configure(url: str) -> None:
    os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0" * 50)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django
    from django.conf import settings

    backends = {
        "default": "cache_layer.backends.ResilientCache",
        "django-redis": "django_redis.cache.RedisCache",
        "django": "django.core.cache.backends.redis.RedisCache",
    }
    settings.CACHES = {
        alias: {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": alias}
        for alias, backend in backends.items()
    }
    django.setup()


def read(url: str) -> None:
    """Run the reader: for each line with a way and a key, read the key and write a line."""
    made = ways(url)
    print("ready", flush=True)
    for line in sys.stdin:
        name, key = line.rstrip("\n").split("\t")
        made[name][0](key)
        print(key, flush=True)


def race(url: str, tries: int) -> None:
    database = redis.Redis.from_url(url)
    reader = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fill_race", "--reader", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    print("| | tries | stale |\n|---|---|---|")
    with reader:
        reader.stdout.readline()
        for name, (through_cache, invalidate) in ways(url).items():
            stale = 0
            for number in range(tries):
                key = f"k{number}"
                database.set(f"database:{key}", "old")
                reader.stdin.write(f"{name}\t{key}\n")
                reader.stdin.flush()
                time.sleep(random.random() / 250)
                database.set(f"database:{key}", "new")
                invalidate(key)
                reader.stdout.readline()
                stale += through_cache(key) == b"old"
            print(f"| {name} | {tries} | {stale} |", flush=True)
        reader.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--reader", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        configure(options.reader)
        read(options.reader)
        return
    server = RedisServer()
    server.start()
    try:
        configure(server.url)
        race(server.url, options.tries)
    finally:
        server.close()


if __name__ == "__main__":
    main()
