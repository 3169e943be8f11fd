"""Processes, event loops and threads."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from asgiref.sync import async_to_sync

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Stores, make_cache, wait_for
from tests.services import RedisServer

ROOT = Path(__file__).resolve().parents[2]


def stale_reads(url: str, tries: int, *options: str) -> int:
    """Race invalidations against the computations of another process; count what stayed old."""
    cache = make_cache(url)
    database = redis.Redis.from_url(url)
    reader = subprocess.Popen(
        [sys.executable, "-m", "tests.cache_layer.fill_race", url, cache.key_prefix, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    stale = 0
    with reader:
        reader.stdout.readline()
        for number in range(tries):
            key = f"k{number}"
            database.set(f"database:{key}", "old")
            reader.stdin.write(f"{key}\n")
            reader.stdin.flush()
            time.sleep(random.random() / 400)
            database.set(f"database:{key}", "new")
            # In turns, everything that invalidates.
            (cache.delete, cache.delete_pattern, lambda key: cache.delete_many([key]))[number % 3](
                key
            )
            assert reader.stdout.readline().strip() == key
            stale += cache.get(key) == "old"
        reader.stdin.close()
    database.close()
    return stale


def test_a_value_computed_before_an_invalidation_is_not_stored_after_it(redis_url: str) -> None:
    assert stale_reads(redis_url, 300) == 0


def test_the_race_is_one(redis_url: str) -> None:
    assert stale_reads(redis_url, 300, "--unfenced") > 0


def test_many_event_loops_leave_no_connections(redis_server: RedisServer) -> None:
    cache = make_cache(redis_server.url)
    errors: list[Exception] = []

    def work() -> None:
        async def use() -> None:
            await cache.aset("k", 1)
            assert await asyncio.gather(*[cache.aget("k") for _ in range(3)]) == [1, 1, 1]

        try:
            for _ in range(50):
                async_to_sync(use)()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.store.close()
    assert errors == []
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(lambda: len(client.client_list()) == 1, "only this connection is left")


def test_a_pool_does_not_use_connections_that_redis_has_closed(redis_server: RedisServer) -> None:
    cache = make_cache(redis_server.url)
    cache.set("k", 1)
    with redis.Redis.from_url(redis_server.url) as client:
        # As after a time without commands, or by a firewall.
        client.client_kill_filter(_type="normal", skipme=True)
        wait_for(lambda: len(client.client_list()) == 1, "only this connection is left")
    assert cache.get("k") == 1
    cache.store.close()


def test_a_closed_store_leaves_no_connection_to_who_holds_its_errors(
    redis_server: RedisServer,
) -> None:
    cache = make_cache(redis_server.url)
    cache.set("k", "text")
    with pytest.raises(ValueError, match="k") as held:
        cache.incr("k")
    cache.store.close()
    # As a debugger does, or who reports errors later.
    assert held.tb is not None
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(lambda: len(client.client_list()) == 1, "only this connection is left")


def test_a_thousand_concurrent_calls_wait_for_their_turn(redis_url: str) -> None:
    cache = make_cache(redis_url)

    async def use() -> list[int]:
        await cache.aset("n", 0)
        return await asyncio.gather(*[cache.aincr("n") for _ in range(1000)])

    assert sorted(async_to_sync(use)()) == list(range(1, 1001))
    assert cache.store.describe()["state"] == "redis"


def test_a_cancelled_call_does_not_disturb_the_others(redis_url: str) -> None:
    cache = make_cache(redis_url)

    async def use() -> None:
        await cache.aset_many({f"k{number}": number for number in range(50)})
        for _ in range(40):
            tasks = [asyncio.create_task(cache.aget(f"k{number}")) for number in range(50)]
            await asyncio.sleep(random.random() / 200)
            for task in tasks[::3]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                if number % 3 or not isinstance(result, asyncio.CancelledError):
                    assert result == number

    async_to_sync(use)()
    assert cache.store.describe()["state"] == "redis"


FORK = """
    import asyncio, faulthandler, os, sys, threading
    import django
    from django.conf import settings
    settings.configure(INSTALLED_APPS=["cache_layer"], SECRET_KEY="only-for-tests")
    django.setup()
    from cache_layer.backends import ResilientCache

    # A busy machine is no outage: what is looked for are locks that nobody gives back.
    patient = {"SOCKET_TIMEOUT": 15, "SOCKET_CONNECT_TIMEOUT": 15}
    cache = ResilientCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2], "OPTIONS": patient})
    cache.set("k", "parent")
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            cache.get("k")

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()

    async def in_a_loop():
        # The child inherits the parent's running clients.
        await cache.aset("a", 1)
        children = []
        for number in range(10):
            child = os.fork()
            if child == 0:
                status = 1
                faulthandler.dump_traceback_later(20, exit=True)
                try:
                    cache.set(f"child{number}", number)
                    assert cache.get(f"child{number}") == number
                    asyncio.events._set_running_loop(None)
                    assert asyncio.run(cache.aincr(f"child{number}")) == number + 1
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
            assert await cache.aget("a") == 1
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    try:
        codes = asyncio.run(in_a_loop())
    finally:
        # Otherwise the threads hide for ever what was raised.
        stop.set()
    for thread in threads:
        thread.join()
    assert cache.get("k") == "parent"
    assert cache.store.describe()["state"] == sys.argv[3]
    sys.exit(max(codes))
"""


class TestFork(Stores):
    def test_children_have_connections_and_locks_of_their_own(
        self, backend: ResilientCache
    ) -> None:
        arguments = [backend._location, uuid.uuid4().hex, str(backend.store.describe()["state"])]
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning"),
                *("-c", textwrap.dedent(FORK), *arguments),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


FORK_WHILE_ANOTHER_CACHE_WAITS = """
    import faulthandler, os, sys, threading
    import django
    from django.conf import settings
    from django.core.cache.backends.filebased import FileBasedCache

    reading, answered = threading.Event(), threading.Event()

    class SlowCache(FileBasedCache):
        def get(self, key, default=None, version=None):
            if key.endswith("slow"):
                reading.set()
                answered.wait()
            return super().get(key, default, version)

    settings.configure(
        CACHES={"default": {"BACKEND": "__main__.SlowCache", "LOCATION": sys.argv[1]}},
        INSTALLED_APPS=["cache_layer"],
        SECRET_KEY="only-for-tests",
    )
    django.setup()
    from cache_layer import get_sync_cache

    cache = get_sync_cache("forked")
    thread = threading.Thread(target=cache.get, args=["slow"], daemon=True)
    thread.start()
    assert reading.wait(20)
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(20, exit=True)
        status = 1
        try:
            cache.set("k", "of the child")
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answered.set()
    thread.join()
    assert cache.get("k") == "of the child"
    sys.exit(code)
"""


def test_a_child_does_not_wait_for_a_call_of_its_parent_to_a_foreign_cache(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning"),
            *("-c", textwrap.dedent(FORK_WHILE_ANOTHER_CACHE_WAITS), str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_memory_only_needs_neither_redis_nor_django_redis() -> None:
    code = """
        import sys
        sys.modules["redis"] = sys.modules["django_redis"] = None
        import asyncio, django
        from django.conf import settings
        settings.configure(
            CACHES={"default": {"BACKEND": "cache_layer.backends.ResilientCache"}},
            INSTALLED_APPS=["cache_layer"],
            SECRET_KEY="only-for-tests",
        )
        django.setup()
        from django.core.cache import cache
        from cache_layer.manager import get_redis_manager
        cache.set("k", [1])
        assert asyncio.run(cache.aget("k")) == [1]
        manager = asyncio.run(get_redis_manager())
        assert asyncio.run(manager.scan_keys("*")) == ["k"]
        assert manager.get_metrics()["backend"]["state"] == "memory"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_a_process_without_the_client_of_redis_ends_quietly() -> None:
    code = """
        import sys

        sys.modules["redis"] = sys.modules["django_redis"] = sys.modules["hiredis"] = None
        import django
        from django.conf import settings

        settings.configure(
            INSTALLED_APPS=["cache_layer"],
            CACHES={
                "default": {
                    "BACKEND": "cache_layer.backends.ResilientCache",
                    "LOCATION": "redis://127.0.0.1:6379/0",
                }
            },
        )
        django.setup()
        from django.core.cache import cache

        cache.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_two_aliases_on_one_url_keep_their_own_options(redis_url: str, client: redis.Redis) -> None:
    from cache_layer.codec import SignedPickleSerializer

    pickling = f"{SignedPickleSerializer.__module__}.{SignedPickleSerializer.__qualname__}"
    one = make_cache(redis_url, OPTIONS={"CONNECTION_POOL_KWARGS": {"client_name": "one"}})
    other = make_cache(
        redis_url,
        KEY_PREFIX=one.key_prefix,
        OPTIONS={"SERIALIZER": pickling, "CONNECTION_POOL_KWARGS": {"client_name": "other"}},
    )
    one.set("k", [1])
    other.set("l", [1])
    assert {"one", "other"} <= {found["name"] for found in client.client_list()}
    # What the other alias wrote with another serializer is a miss, not an exception.
    assert one.get("l") is None
    assert other.get("k") is None
    one.store.close()
    other.store.close()


@pytest.mark.parametrize("compressor", ["zlib", "gzip", "lzma"])
def test_django_redis_compressors(redis_url: str, client: redis.Redis, compressor: str) -> None:
    cls = {"zlib": "ZlibCompressor", "gzip": "GzipCompressor", "lzma": "LzmaCompressor"}[compressor]
    cache = make_cache(
        redis_url, OPTIONS={"COMPRESSOR": f"django_redis.compressors.{compressor}.{cls}"}
    )
    value = {"text": "long " * 1000}
    cache.set_many({"long": value, "short": "s", "number": 5})
    assert cache.get_many(["long", "short", "number"]) == {
        "long": value,
        "short": "s",
        "number": 5,
    }
    assert cache.incr("number") == 6
    assert client.strlen(cache.make_key("long")) < 500
    cache.store.close()


async def test_a_cancelled_caller_leaves_no_lease_behind(redis_url: str) -> None:
    cache = make_cache(redis_url)
    client = redis.asyncio.Redis.from_url(redis_url)
    await cache.aget("connected")
    forever = asyncio.Event()
    cancelled = 0
    for number in range(300):
        key = f"k{number}"
        task = asyncio.create_task(cache.aget_or_set(key, forever.wait))
        await asyncio.sleep(random.random() / 1000)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
            assert await client.get(cache.make_key(key)) is None
    assert cancelled > 0
    await client.aclose()
    cache.store.close()
