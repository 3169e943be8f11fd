"""A computation that came to nothing leaves nothing behind, and is counted once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import cache

from cache_layer import cached, get_redis_manager, metrics
from cache_layer.backends import MISSING, ResilientCache
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.singleflight import SingleFlight, acquire, finish
from tests.cache_layer.caches import Awaited, Stores, is_leased, state


class Contract(Stores):
    @pytest.fixture
    def face(self, backend: ResilientCache) -> Any:
        raise AssertionError("the subclass says which face")

    def test_a_default_that_raises_gives_its_lease_back(
        self, face: Any, backend: ResilientCache
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            face.get_or_set("k", lambda: 1 / 0)
        assert not is_leased(backend, "k")

    def test_a_default_that_cannot_be_stored_gives_its_lease_back(
        self, face: Any, backend: ResilientCache
    ) -> None:
        with pytest.raises(UnsupportedValueError):
            face.get_or_set("k", object())
        assert not is_leased(backend, "k")

    def test_a_value_that_somebody_stores_between_two_questions_is_returned(
        self, face: Any, backend: ResilientCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after_a_miss(backend, monkeypatch, lambda: backend.set("k", "somebody's"))
        assert face.get_or_set("k", lambda: 1 / 0) == "somebody's"

    def test_bytes_that_somebody_damages_between_two_questions_are_a_miss(
        self, face: Any, backend: ResilientCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def damage() -> None:
            key, envelope = backend.make_key("k"), b"\x00E and no more"
            if state(backend) == "redis":
                backend.client.get_client(write=True).set(key, envelope)
            else:
                backend.store.memory.write(key, envelope, None)

        after_a_miss(backend, monkeypatch, damage)
        assert face.get_or_set("k", lambda: 1) == 1
        assert face.get_or_set("k", lambda: 2) == 2
        assert face.get_or_set("k", lambda: 3) == 2

    def test_who_joined_a_computation_and_fails_leaves_the_lease_to_its_owner(
        self, face: Any, backend: ResilientCache
    ) -> None:
        def owner_s_default() -> str:
            with pytest.raises(ZeroDivisionError):
                face.get_or_set("k", lambda: 1 / 0)
            return "the owner's"

        assert backend.get_or_set("k", owner_s_default) == "the owner's"
        assert backend.get("k") == "the owner's"

    def test_a_miss_a_fill_and_a_hit_are_counted_once_each(self, face: Any) -> None:
        metrics.reset()
        assert face.get_or_set("k", lambda: 1, namespace="counted") == 1
        assert face.get_or_set("k", lambda: 2, namespace="counted") == 1
        assert counted() == {"hits": 1, "misses": 1, "sets": 1}

    def test_what_was_not_stored_is_not_counted_as_stored(
        self, face: Any, backend: ResilientCache
    ) -> None:
        def invalidated_meanwhile() -> int:
            backend.delete("counted:k")
            return 1

        metrics.reset()
        assert face.get_or_set("k", invalidated_meanwhile, namespace="counted") == 1
        assert counted() == {"misses": 1}


def after_a_miss(
    backend: ResilientCache, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]
) -> None:
    """Do something once, as soon as a value is found missing."""
    run, arun = backend.run, backend.arun

    def told(found: Any) -> Any:
        if found is MISSING:
            monkeypatch.undo()
            action()
        return found

    async def awaited(operation: Any) -> Any:
        return told(await arun(operation))

    monkeypatch.setattr(backend, "run", lambda operation: told(run(operation)))
    monkeypatch.setattr(backend, "arun", awaited)


class TestSync(Contract):
    @pytest.fixture
    def face(self, backend: ResilientCache) -> Any:
        return backend


class TestAwaited(Contract):
    @pytest.fixture
    def face(self, backend: ResilientCache) -> Any:
        return Awaited(backend)

    def test_a_cancelled_default_gives_its_lease_back(self, backend: ResilientCache) -> None:
        async def cancel_it() -> None:
            begun = asyncio.Event()

            async def default() -> None:
                begun.set()
                await asyncio.sleep(3600)

            task = asyncio.create_task(backend.aget_or_set("k", default))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel_it())
        assert not is_leased(backend, "k")


def counted(namespace: str = "counted") -> dict[str, int]:
    found = metrics.snapshot()["metrics"]
    return {
        name.removeprefix(f"{namespace}:"): number
        for name, number in found.items()
        if name.startswith(f"{namespace}:") and number
    }


@pytest.mark.usefixtures("store")
async def test_a_cached_call_counts_one_miss_and_one_set_and_then_hits() -> None:
    @cached(namespace="counted", key_prefix="f")
    async def fetch(number: int) -> int:
        return number

    metrics.reset()
    for _ in range(3):
        await fetch(1)
    assert counted() == {"hits": 2, "misses": 1, "sets": 1}
    manager = await get_redis_manager()
    assert manager.get_hit_rate("counted") == pytest.approx(200 / 3)


@pytest.mark.usefixtures("store")
def test_computations_that_ended_are_forgotten() -> None:
    def flights() -> list[SingleFlight]:
        gc.collect()
        return [each for each in gc.get_objects() if type(each) is SingleFlight]

    # The errors that other tests have raised hold theirs.
    others = flights()

    @cached(key_prefix="many")
    def compute(number: int) -> int:
        if number % 2:
            raise LookupError
        return number

    for number in range(100):
        try:
            compute(number)
        except LookupError:
            continue
    assert all(any(each is other for other in others) for each in flights())


def test_who_comes_too_late_for_a_computation_is_told_for_a_while() -> None:
    """Else a caller with its token, delayed until it has ended, would compute a second time."""
    ended = b"ended"
    flight, leads = acquire(ended, owner=True)
    assert flight is not None
    assert leads
    finish(flight)
    assert acquire(ended, owner=False) == (None, False)
    for number in range(5_000):
        other, _leads = acquire(f"other {number}".encode(), owner=True)
        assert other is not None
        finish(other)
    # Remembering every token would be a leak.
    again, leads = acquire(ended, owner=False)
    assert again is not None
    assert leads
    finish(again)


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_a_cached_function_that_raises_gives_its_lease_back(store: str, redis_url: str) -> None:
    @cached(key_prefix="fails")
    def fails() -> int:
        raise LookupError

    @cached(key_prefix="fails")
    async def fails_awaited() -> int:
        raise LookupError

    with redis.Redis.from_url(redis_url, socket_timeout=10) as client:
        for function, call in ((fails, fails), (fails_awaited, async_to_sync(fails_awaited))):
            with pytest.raises(LookupError):
                call()
            assert client.exists(cache.make_key(function.cache_key())) == 0
