from __future__ import annotations

import multiprocessing
import time
import uuid
from typing import Any

from django.test import override_settings

from cache_layer import cached, metrics


@cached(key_prefix="processes", lock=True)
def across(run: str) -> str:
    time.sleep(0.5)
    return uuid.uuid4().hex


def call_across(url: str, prefix: str, run: str, results: Any) -> None:
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": prefix,
        "OPTIONS": {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10},
    }
    with override_settings(CACHES={"default": entry}):
        metrics.reset()
        value = across(run)
        results.put((value, metrics.snapshot()["metrics"]["default:misses"]))


def test_with_lock_processes_that_miss_together_run_the_function_once(redis_url: str) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    prefix = f"test-{uuid.uuid4().hex}"
    processes = [
        context.Process(target=call_across, args=(redis_url, prefix, "a", results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    values = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({value for value, _misses in values}) == 1
    assert all(misses <= 1 for _value, misses in values)
