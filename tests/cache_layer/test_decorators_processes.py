from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.test import override_settings

from cache_layer import cached, invalidate_tags, metrics
from tests.cache_layer.caches import wait_for

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def using(url: str, prefix: str) -> Iterator[None]:
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": prefix,
        "OPTIONS": {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10},
    }
    with override_settings(CACHES={"default": entry}):
        # Imports and connecting take longer than the function on a busy machine.
        cache.has_key("warm")
        yield


@cached(key_prefix="processes", lock=True)
def across(run: str) -> str:
    time.sleep(0.5)
    return uuid.uuid4().hex


def call_across(url: str, prefix: str, run: str, barrier: Any, results: Any) -> None:
    with using(url, prefix):
        barrier.wait(60)
        value = across(run)
        results.put((value, metrics.snapshot()["metrics"]["default:misses"]))


def test_with_lock_processes_that_miss_together_run_the_function_once(redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    barrier = context.Barrier(4)
    prefix = f"test-{uuid.uuid4().hex}"
    processes = [
        context.Process(target=call_across, args=(redis_url, prefix, "a", barrier, results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    values = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({value for value, _misses in values}) == 1
    assert all(misses <= 1 for _value, misses in values)


@cached(key_prefix="processes", lock=True)
def failing(run: str) -> None:
    begun = time.monotonic()
    time.sleep(0.5)
    raise LookupError(begun, time.monotonic())


def call_failing(url: str, prefix: str, barrier: Any, results: Any) -> None:
    with using(url, prefix):
        barrier.wait(60)
        try:
            failing("a")
        except LookupError as error:
            results.put(error.args)


def test_with_lock_processes_do_not_queue_up_for_failures(redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    barrier = context.Barrier(4)
    prefix = f"test-{uuid.uuid4().hex}"
    processes = [
        context.Process(target=call_failing, args=(redis_url, prefix, barrier, results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    runs = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    overlaps = [earlier[1] > later[0] for earlier, later in itertools.pairwise(runs)]
    # The first runs alone; who waited for it then runs beside the others.
    assert any(overlaps)


@cached(key_prefix="processes", lock=True)
def locked(url: str) -> str:
    return counted(url)


@cached(key_prefix="processes", ttl=0.05, stale_ttl=600, tags=["renewed"])
def renewed(url: str) -> str:
    return counted(url)


def counted(url: str) -> str:
    """The number of the call, among all processes; what a process calls second hangs."""
    with redis.Redis.from_url(url) as client:
        number = int(client.incr("calls"))
        if client.get("hang") == str(number).encode():
            time.sleep(600)
        return str(number)


def call_until_stopped(
    url: str, prefix: str, name: str, results: Any, begin: Any, stop: Any, lease_ttl: float
) -> None:
    function: Callable[[str], str] = globals()[name]
    with using(url, prefix), override_settings(CACHE_LAYER_LEASE_TTL=lease_ttl):
        results.put("ready")
        begin.wait()
        while not stop.is_set():
            results.put(function(url))
            time.sleep(0.01)


@contextlib.contextmanager
def processes(
    count: int, url: str, prefix: str, name: str, lease_ttl: float
) -> Iterator[list[tuple[BaseProcess, Any]]]:
    """Processes that call a function again and again, each with what it got."""
    context = multiprocessing.get_context("spawn")
    begin, stop = context.Event(), context.Event()
    started = []
    for _ in range(count):
        results = context.SimpleQueue()
        arguments = (url, prefix, name, results, begin, stop, lease_ttl)
        started.append((context.Process(target=call_until_stopped, args=arguments), results))
    try:
        for process, _results in started:
            process.start()
        for _process, results in started:
            assert results.get() == "ready"
        begin.set()
        yield started
    finally:
        stop.set()
        for process, _results in started:
            process.kill()
            process.join()


def test_the_death_of_who_computes_holds_others_up_for_the_lease_only(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    with (
        redis.Redis.from_url(redis_url) as client,
        using(redis_url, prefix),
        override_settings(CACHE_LAYER_LEASE_TTL=2),
    ):
        client.set("hang", 1)
        with processes(1, redis_url, prefix, "locked", 2) as [(holder, _results)]:
            wait_for(lambda: client.get("calls") == b"1", "the holder computes")
            holder.kill()
            holder.join()
            assert locked(redis_url) == "2"
        assert locked(redis_url) == "2"


def test_one_of_all_processes_renews_and_its_death_is_survived(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    with (
        redis.Redis.from_url(redis_url) as client,
        using(redis_url, prefix),
        override_settings(CACHE_LAYER_LEASE_TTL=2),
    ):
        assert renewed(redis_url) == "1"
        client.set("hang", 2)
        with processes(3, redis_url, prefix, "renewed", 6) as started:
            wait_for(lambda: client.get("calls") == b"2", "one renews")
            for _process, results in started:
                assert {results.get() for _ in range(5)} == {"1"}, "the old one is served"
            assert client.get("calls") == b"2", "nobody else renews"
        # Whoever renewed it was killed.
        wait_for(lambda: renewed(redis_url) == "3", "its claim has run out")
        invalidate_tags("renewed")
        assert int(renewed(redis_url)) >= 4
