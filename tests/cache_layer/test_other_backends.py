"""Another Django cache behind the alias: everything works, with that cache's guarantees."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connections
from django.test import override_settings

from cache_layer import (
    ainvalidate_tags,
    cache_invalidate,
    cached,
    cached_many,
    get_cache,
    get_redis_manager,
    get_sync_cache,
    invalidate_tags,
)
from cache_layer.exceptions import CacheLayerError

BACKENDS = "django.core.cache.backends."


@pytest.fixture(params=["locmem.LocMemCache", "filebased.FileBasedCache", "db.DatabaseCache"])
def backend(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
    entry: dict[str, Any] = {"BACKEND": BACKENDS + request.param, "LOCATION": uuid.uuid4().hex}
    if "File" in request.param:
        entry["LOCATION"] = tempfile.mkdtemp()
    if "Database" in request.param:
        entry["LOCATION"] = "table_of_the_cache"
    with override_settings(CACHES={"default": entry}):
        if "Database" in request.param:
            from django.core.management import call_command

            call_command("createcachetable", verbosity=0)
        cache.clear()
        yield
        cache.clear()


def closing(call: Callable[[], object]) -> Callable[[], None]:
    """Close the thread's connections to the database after a call."""

    def called() -> None:
        try:
            call()
        finally:
            connections.close_all()

    return called


@pytest.fixture
def dummy() -> Iterator[None]:
    with override_settings(CACHES={"default": {"BACKEND": BACKENDS + "dummy.DummyCache"}}):
        yield


@cached(key_prefix="foreign", tags=["all", "user-{user_id}"])
def get(user_id: int) -> str:
    return uuid.uuid4().hex


@cached(key_prefix="foreign", tags=["all"], ttl=60, stale_ttl=60)
async def aget(user_id: int) -> str:
    return uuid.uuid4().hex


@cache_invalidate("foreign:get:{user_id}")
def update(user_id: int) -> None: ...


@cache_invalidate("foreign:*")
def update_all() -> None: ...


def test_results_are_kept_and_forgotten(backend: None) -> None:
    one, two = get(1), get(2)
    assert (get(1), get(2)) == (one, two)
    update(1)
    assert get(1) != one
    assert get(2) == two
    invalidate_tags("user-2")
    assert get(2) != two
    one = get(1)
    assert get.invalidate(1)
    assert get(1) != one
    one = get(1)
    update_all()
    assert get(1) != one
    one = get(1)
    get.invalidate_all()
    assert get(1) != one


async def test_awaited_results_are_kept_and_forgotten(backend: None) -> None:
    one = await aget(1)
    assert await aget(1) == one
    await ainvalidate_tags("all")
    assert await aget(1) != one
    one = await aget(1)
    assert await aget.invalidate(1)
    assert await aget.refresh(1) != one


def test_a_value_computed_before_an_invalidation_is_not_kept(backend: None) -> None:
    began, go_on = threading.Event(), threading.Event()
    answers = ["old", "new"]

    @cached(key_prefix="slow")
    def slow() -> str:
        answer = answers.pop(0)
        if answer == "old":
            began.set()
            assert go_on.wait(30)
        return answer

    thread = threading.Thread(target=closing(slow))
    thread.start()
    assert began.wait(30)
    slow.invalidate()
    go_on.set()
    thread.join()
    assert slow() == "new"


def test_threads_that_miss_together_compute_once(backend: None) -> None:
    calls = []
    barrier = threading.Barrier(5)

    @cached(key_prefix="together")
    def compute() -> int:
        calls.append(1)
        return 7

    def call() -> None:
        barrier.wait()
        assert compute() == 7

    threads = [threading.Thread(target=closing(call)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_the_namespaced_faces_and_djangos_api_see_each_others_values(backend: None) -> None:
    users = get_sync_cache("users")
    assert users.set("a", {"x": [1, None]}, ttl=100)
    assert cache.get("users:a") == {"x": [1, None]}
    cache.set("users:b", 2, 100)
    assert users.get("b") == 2
    assert users.increment("b", 3) == 5
    assert users.increment("new") == 1
    assert cache.get("users:b") == 5
    assert users.get_many(["a", "b"]) == {"a": {"x": [1, None]}, "b": 5}
    assert users.get_or_set("c", lambda: 3) == users.get_or_set("c", lambda: 4) == 3
    assert users.exists("c")
    assert users.delete("c")
    assert users.get("c", "gone") == "gone"
    users.clear()
    assert users.get("a") is None


async def test_keys_are_listed_by_nobody(backend: None) -> None:
    users = await get_cache("users")
    await users.set("a", 1)
    manager = await get_redis_manager()
    with pytest.raises(CacheLayerError, match="cannot list its keys"):
        await manager.scan_keys("*")
    assert "backend" in manager.get_metrics()
    # Everything is deleted, and nobody knows how much that was.
    assert await manager.delete_by_pattern("users:*") == 0
    assert await users.get("a") is None


def test_items_and_chunks_are_kept_and_forgotten(backend: None) -> None:
    asked: list[list[int]] = []
    runs: list[int] = []

    @cached_many(key_prefix="doubles")
    def doubles(numbers: list[int]) -> list[int]:
        asked.append(numbers)
        return [2 * number for number in numbers]

    @cached(key_prefix="count")
    def count(end: int) -> Iterator[int]:
        runs.append(end)
        yield from range(end)

    assert (doubles([1, 2]), doubles([2, 3])) == ([2, 4], [4, 6])
    assert doubles.invalidate([1]) == 1
    assert doubles([1, 2, 3]) == [2, 4, 6]
    assert asked == [[1, 2], [3], [1]]
    assert [*count(3)] == [*count(3)] == [0, 1, 2]
    assert count.invalidate(3) is True
    assert [*count(3)] == [0, 1, 2]
    assert runs == [3, 3]


def test_a_dummy_cache_keeps_nothing(dummy: None) -> None:
    assert get(1) != get(1)
    assert not get.invalidate(1)
    update(1)
    update_all()
    invalidate_tags("all")
    users = get_sync_cache("users")
    users.set("a", 1)
    assert users.get("a") is None
    assert users.get_or_set("a", 2) == 2

    async def awaited() -> None:
        assert await aget(1) != await aget(1)
        await ainvalidate_tags("all")

    asyncio.run(awaited())
