"""Changes by others: the near cache hears of them, or turns off."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from cache_layer.globs import escape_glob
from cache_layer.keyspace import literal_start
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.cache_layer.near.helpers import (
    asked,
    heard,
    listening,
    make_near,
    near_of,
    write_at_random,
)
from tests.faults.proxy import Proxy
from tests.services import RedisServer

ROOT = Path(__file__).resolve().parents[3]


FOREIGN: dict[str, Callable[[redis.Redis, str], object]] = {
    "SET": lambda client, key: client.set(key, b"2"),
    "DEL": lambda client, key: client.delete(key),
    "FLUSHDB": lambda client, key: client.flushdb(),
    "INCR": lambda client, key: client.incr(key),
    "RENAME": lambda client, key: client.rename(key, f"{key}:renamed"),
    "EXPIRE": lambda client, key: client.pexpire(key, 60_000),
}


@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("key", ["k", "\ud800 ü*"], ids=["plain", "odd"])
@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_a_change_by_another_client_drops_the_entry(
    cache: ResilientCache,
    client: redis.Redis,
    key: str,
    write: Callable[[redis.Redis, bytes], object],
) -> None:
    full = cache.make_key(key).encode("utf-8", "surrogatepass")
    cache.set(key, 1)
    heard(cache, client)
    assert [cache.get(key), cache.get(key)] == [1, 1]
    assert len(near_of(cache)) == 1
    write(client, full)
    wait_for(lambda: len(near_of(cache)) == 0, "the change is heard of")
    stored = client.get(full)
    assert cache.get(key) == (None if stored is None else int(stored))


def test_racing_changes_by_another_client_leave_nothing_stale(
    cache: ResilientCache, client: redis.Redis
) -> None:
    keys = [f"k{number}" for number in range(40)]
    full = [cache.make_key(key) for key in keys]
    done = threading.Event()
    reads = [0]
    backwards: list[tuple[int, int]] = []

    def seen(latest: dict[str, int], key: str, found: Any) -> None:
        reads[0] += 1
        if found is not None:
            if found < latest.get(key, 0):
                backwards.append((found, latest[key]))
            latest[key] = found

    def read() -> None:
        latest: dict[str, int] = {}
        while not done.is_set():
            key = random.choice(keys)
            seen(latest, key, cache.get(key))

    async def aread() -> None:
        latest: dict[str, int] = {}
        while not done.is_set():
            for key, found in zip(keys, await asyncio.gather(*map(cache.aget, keys)), strict=True):
                seen(latest, key, found)
            await asyncio.sleep(0)

    threads = [threading.Thread(target=read) for _ in range(2)]
    threads.append(threading.Thread(target=lambda: asyncio.run(aread())))
    for thread in threads:
        thread.start()
    written = write_at_random(client, full, 10, seconds=2)
    heard(cache, client)
    kept = [cache.get(key, 0) for key in keys]
    done.set()
    for thread in threads:
        thread.join()
    assert kept == written
    assert backwards == []
    assert reads[0] > 1000
    assert near_of(cache).on


def test_racing_changes_leave_nothing_stale_in_get_many(
    cache: ResilientCache, client: redis.Redis
) -> None:
    keys = [f"k{number}" for number in range(20)]
    full = [cache.make_key(key) for key in keys]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            cache.get_many(random.sample(keys, 10))

    async def aread() -> None:
        while not done.is_set():
            few = [random.sample(keys, 5) for _ in range(3)]
            await asyncio.gather(*map(cache.aget_many, few))
            await cache.aget_or_set(random.choice(keys), 0)

    threads = [threading.Thread(target=read), threading.Thread(target=lambda: asyncio.run(aread()))]
    for thread in threads:
        thread.start()
    written = write_at_random(client, full, 5, seconds=1.5)
    heard(cache, client)
    kept = cache.get_many(keys)
    done.set()
    for thread in threads:
        thread.join()
    assert [kept.get(key, 0) for key in keys] == written
    assert near_of(cache).on


def test_closing_the_store_leaves_neither_thread_nor_connection(redis_server: RedisServer) -> None:
    cache = make_near(redis_server.url)
    cache.store.close()
    assert "cache-layer-tracker" not in [thread.name for thread in threading.enumerate()]
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(lambda: len(client.client_list()) == 1, "only this connection is left")


def test_literal_start_of_escaped_patterns() -> None:
    for text in ("", "app", "a*b?[c]\\^", "ü\ud800"):
        assert literal_start(f"{escape_glob(text)}*:x") == text


FORK = """
    import os, sys, time
    import django
    from django.conf import settings
    settings.configure(INSTALLED_APPS=["cache_layer"], SECRET_KEY="only-for-tests")
    django.setup()
    from cache_layer.backends import ResilientCache

    options = {"NEAR_CACHE": True}
    cache = ResilientCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2], "OPTIONS": options})
    plain = ResilientCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2]})

    def follows(value):
        deadline = time.monotonic() + 20
        while not cache.store.near.on or not len(cache.store.near):
            assert time.monotonic() < deadline
            cache.get("k")
            time.sleep(0.01)
        plain.set("k", value)
        while cache.get("k") != value:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    cache.set("k", 0)
    follows(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert not cache.store.near.on and not len(cache.store.near)
            follows(2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.store.near.on
    follows(3)
"""


def test_a_child_listens_for_itself_and_its_parent_goes_on(url: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORK)),
            *(url, uuid.uuid4().hex),
        ],
        cwd=ROOT,
        timeout=60,
        check=True,
    )


@pytest.mark.usefixtures("default_timeouts")
class TestBrokenRedis:
    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[ResilientCache]:
        cache = make_near(redis_server.url)
        yield cache
        cache.store.close()

    def test_a_killed_redis_empties_the_near_cache(
        self, cache: ResilientCache, redis_server: RedisServer
    ) -> None:
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        redis_server.kill()
        wait_for(lambda: not near_of(cache).on, "the near cache is off")
        assert len(near_of(cache)) == 0
        wait_for(lambda: cache.get("k") is None, "it is empty")
        redis_server.restart()
        wait_for(
            lambda: (
                (cache.set("k", 2), cache.get("k") == cache.get("k") == 2)[1]
                and state(cache) == "redis"
                and len(near_of(cache)) == 1
            ),
            "everything is as it was",
        )

    def test_a_hung_redis_empties_the_near_cache(
        self, cache: ResilientCache, redis_server: RedisServer, settings: Any
    ) -> None:
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        redis_server.stop()
        begun = time.monotonic()
        wait_for(lambda: cache.get("k") is None, "the near cache is off")
        allowed = settings.CACHE_LAYER_OPERATION_TIMEOUT * 2 + 0.5
        assert time.monotonic() - begun < allowed + 0.5
        redis_server.cont()
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        wait_for(lambda: cache.get("k") == 1, "it was not lost")

    def test_a_cut_network_empties_the_near_cache(self, redis_server: RedisServer) -> None:
        proxy = Proxy(redis_server.port)
        proxy.start()
        cache = make_near(proxy.url)
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        proxy.seconds = 60
        proxy.fault = "delay"
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(cache.make_key("k"), 2)
        begun = time.monotonic()
        while cache.get("k") == 1:
            time.sleep(0.001)
        # An interval and a timeout, and the machine's own business.
        assert time.monotonic() - begun < 0.5 + 0.25 + 0.5
        cache.store.close()
        proxy.close()

    def test_a_redis_that_refuses_tracking_is_reported_once(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
            client.execute_command("ACL", "SETUSER", "app", "-client|tracking")
        url = redis_server.url.replace("redis://", "redis://app:secret@")
        with caplog.at_level(logging.WARNING, logger="cache_layer"):
            cache = make_cache(url, OPTIONS={"NEAR_CACHE": True})
            cache.set("k", 1)
            cache.get("k")
            wait_for(lambda: "near cache stays off" in caplog.text, "it says so")
            assert [cache.get("k"), cache.get("k")] == [1, 1]
            assert state(cache) == "redis"
        assert not near_of(cache).on
        assert len(caplog.records) == 1
        cache.store.close()


def test_what_is_near_stays_so_while_nothing_changes(
    url: str, client: redis.Redis, settings: Any
) -> None:
    settings.CACHE_LAYER_NEAR_PING_INTERVAL = 0.1
    seconds = {"SOCKET_TIMEOUT": 2, "SOCKET_CONNECT_TIMEOUT": 2}
    cache = make_cache(url, OPTIONS={"NEAR_CACHE": True, **seconds})
    listening(cache)
    cache.set("k", 1)
    # Longer than an entry may be used without a sign of life of Redis.
    time.sleep(2.5)

    def is_near() -> bool:
        assert cache.get("k") == 1
        before = asked(client)
        assert cache.get("k") == 1
        return asked(client) == before

    wait_for(is_near, "the value is answered by the near cache")
    cache.store.close()
