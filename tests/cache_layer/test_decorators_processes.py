from __future__ import annotations

import itertools
import multiprocessing
import time
import uuid
from typing import Any

import pytest
from django.core.cache import cache
from django.test import override_settings

from cache_layer import cached, metrics

pytestmark = pytest.mark.slow


@cached(key_prefix="processes", lock=True)
def across(run: str) -> str:
    time.sleep(0.5)
    return uuid.uuid4().hex


def call_across(url: str, prefix: str, run: str, barrier: Any, results: Any) -> None:
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": prefix,
        "OPTIONS": {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10},
    }
    with override_settings(CACHES={"default": entry}):
        # Imports and connecting take longer than the function on a busy machine.
        cache.has_key("warm")
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
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": prefix,
        "OPTIONS": {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10},
    }
    with override_settings(CACHES={"default": entry}):
        # Imports and connecting take longer than the function on a busy machine.
        cache.has_key("warm")
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
