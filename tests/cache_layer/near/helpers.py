"""Helpers for tests of the near cache."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from django.core.cache import caches
from django.test import override_settings

from cache_layer.backends import ResilientCache
from cache_layer.backends.near.cache import NearCache
from tests.cache_layer.caches import make_cache, wait_for


def near_of(cache: ResilientCache) -> NearCache:
    near = cache.store.near
    assert near is not None
    return near


def listening(cache: ResilientCache) -> None:
    """Wait until the near cache is on; a read begins it."""
    cache.get("nothing")
    wait_for(lambda: near_of(cache).on, "the near cache is on")


def make_near(location: str, near: Any = True, **params: Any) -> ResilientCache:
    cache = make_cache(location, OPTIONS={"NEAR_CACHE": near}, **params)
    listening(cache)
    return cache


def heard(cache: ResilientCache, client: redis.Redis) -> None:
    """Wait until the news of everything that happened has come: it comes in order."""
    near = near_of(cache)
    last = cache.make_key("last")
    near.begin_read([last])
    client.set(last, 1)
    wait_for(lambda: last not in near._pending, "the news has come")


def asked(client: redis.Redis, command: str = "get") -> int:
    """How many such commands Redis was sent."""
    found = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


@contextmanager
def default_alias(url: str, **options: Any) -> Iterator[ResilientCache]:
    """The alias of the decorators, with these OPTIONS."""
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": uuid.uuid4().hex,
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": entry}):
        cache = caches["default"]
        assert isinstance(cache, ResilientCache)
        yield cache
        cache.store.close()


def other_process(store: ResilientCache) -> ResilientCache:
    """Sees the same Redis and nothing of this near cache."""
    return make_cache(store._location, KEY_PREFIX=store.key_prefix)


def write_at_random(
    client: redis.Redis, keys: list[str], at_once: int, *, seconds: float
) -> list[int]:
    """Write growing numbers behind the cache's back; return what the keys then hold."""
    value = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for key in random.sample(keys, at_once):
            value += 1
            client.set(key, value)
        time.sleep(random.random() / 500)
    return [int(found or 0) for found in client.mget(keys)]
