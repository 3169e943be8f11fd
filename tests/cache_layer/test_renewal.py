"""Results that are served while they are renewed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.db import connection, transaction

from cache_layer import FOREVER, cached, invalidate_tags
from cache_layer.functions.refresh import MAX_PENDING, THREADS, BackgroundRefreshes, background
from tests.cache_layer.caches import wait_for

pytestmark = pytest.mark.usefixtures("store")

LONG = 600.0
#: A ttl that is over before anybody asks again.
SHORT = 0.05


def age() -> None:
    time.sleep(SHORT * 2)


class Numbers:
    """Returns 1, 2, 3; from the second call on only when it may."""

    def __init__(self) -> None:
        self.calls = 0
        self.proceed = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        if number > 1:
            assert self.proceed.wait(30)
            if self.error:
                raise self.error
        return number


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


def test_the_old_result_is_served_at_once_and_renewed_once(numbers: Numbers) -> None:
    @cached(ttl=SHORT, stale_ttl=LONG)
    def value() -> int:
        return numbers()

    assert value() == 1
    age()
    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(lambda _: value(), range(50))) == {1}
    wait_for(lambda: numbers.calls == 2, "a thread began to renew it")
    assert [value(), cache.get(value.cache_key())] == [1, 1]
    assert LONG - 60 < cache.ttl(value.cache_key()) <= LONG
    numbers.proceed.set()
    wait_for(lambda: value() >= 2, "it is renewed")


async def test_awaited_functions_are_renewed_by_a_task() -> None:
    calls = 0
    proceed = asyncio.Event()

    @cached(ttl=SHORT, stale_ttl=LONG)
    async def value() -> int:
        nonlocal calls
        calls += 1
        number = calls
        if number > 1:
            await proceed.wait()
        return number

    assert await value() == 1
    await asyncio.sleep(SHORT * 2)
    assert set(await asyncio.gather(*[value() for _ in range(50)])) == {1}
    proceed.set()
    deadline = time.monotonic() + 30
    while await value() == 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_it_can_be_renewed_before_its_end(numbers: Numbers) -> None:
    numbers.proceed.set()

    @cached(ttl=LONG, refresh_before=LONG - SHORT)
    def value() -> int:
        return numbers()

    assert value() == 1
    age()
    assert value() == 1
    wait_for(lambda: value() >= 2, "it is renewed")


INVALIDATIONS: dict[str, Callable[[Any], object]] = {
    "call": lambda value: value.invalidate(),
    "function": lambda value: value.invalidate_all(),
    "tag": lambda value: invalidate_tags("a"),
    "key": lambda value: cache.delete(value.cache_key()),
    "pattern": lambda value: cache.delete_pattern("stale:*"),
    "clear": lambda value: cache.clear(),
    "call and recompute": lambda value: (value.invalidate(), cache.get(value.cache_key())),
}


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_an_invalidation_wins_over_the_old_value_and_over_its_renewal(
    numbers: Numbers, invalidate: Callable[[Any], object]
) -> None:
    free = threading.Event()

    @cached(key_prefix="stale", ttl=SHORT, stale_ttl=LONG, tags=["a"])
    def value() -> int:
        return numbers.calls + 1 if free.is_set() else numbers()

    value()
    age()
    value()
    wait_for(lambda: numbers.calls == 2, "a thread began to renew it")
    invalidate(value)
    assert cache.get(value.cache_key()) is None
    free.set()
    assert value() == 3
    numbers.proceed.set()
    wait_for(lambda: not background.under_way, "the renewal ends")
    assert value() == 3


def test_a_failing_renewal_ends_the_old_result(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    numbers.error = LookupError("gone")
    numbers.proceed.set()

    @cached(ttl=SHORT, stale_ttl=LONG)
    def value() -> int:
        return numbers()

    assert value() == 1
    age()
    assert value() == 1
    wait_for(lambda: cache.get(value.cache_key()) is None, "the old result is dropped")
    with pytest.raises(LookupError):
        value()
    (logged,) = [r.getMessage() for r in caplog.records if "refreshed" in r.getMessage()]
    assert logged.endswith("raised while a result was refreshed; the old one is served no more.")


def test_with_fail_safe_the_old_result_goes_on_being_served(
    numbers: Numbers, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    caplog.set_level(logging.INFO, logger="cache_layer")
    settings.CACHE_LAYER_REFRESH_PAUSE = 0.3
    numbers.error = LookupError("down")
    numbers.proceed.set()

    @cached(ttl=SHORT, stale_ttl=LONG, fail_safe=True)
    def value() -> int:
        return numbers()

    def logged() -> list[str]:
        return [r.getMessage() for r in caplog.records if value.__qualname__ in r.getMessage()]

    assert value() == 1
    age()
    began = time.monotonic()

    def asked_again() -> bool:
        assert value() == 1
        return numbers.calls >= 4

    wait_for(asked_again, "the function is tried again")
    assert numbers.calls - 1 <= 1 + (time.monotonic() - began) / 0.3, "not at every call"
    assert len(logged()) == 1
    assert "goes on being served" in logged()[0]
    for times in (1, 2):
        numbers.error = None
        known = value()
        wait_for(lambda known=known: value() > known, "it works again")
        assert len(logged()) == 2 * times
        assert logged()[-1].endswith("works again.")
        if times == 1:
            numbers.error = LookupError("down again")
            age()

            def failed_again() -> bool:
                value()
                return len(logged()) == 3

            wait_for(failed_again, "the next failure is told of, too")


def test_a_failure_before_the_end_changes_nothing(numbers: Numbers) -> None:
    numbers.error = LookupError("down")
    numbers.proceed.set()

    @cached(ttl=LONG, refresh_before=LONG - SHORT)
    def value() -> int:
        return numbers()

    value()
    age()
    value()
    wait_for(lambda: numbers.calls == 2 and not background.under_way, "the renewal failed")
    assert value() == 1


@pytest.mark.parametrize("result", [None, object()], ids=["None", "unstorable"])
def test_a_new_result_that_is_not_kept_ends_the_old_one(result: object) -> None:
    results = [1, result]

    @cached(ttl=SHORT, stale_ttl=LONG)
    def value() -> object:
        return results.pop(0)

    assert value() == 1
    age()
    assert value() == 1
    wait_for(lambda: cache.get(value.cache_key()) is None, "the old result is dropped")


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="nothing")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nothing_of_the_caller_is_there(kind: str) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        seen.append((VARIABLE.get(), connection.in_atomic_block))

    if kind == "sync":

        @cached(ttl=SHORT, stale_ttl=LONG)
        def value() -> int:
            look()
            return 1

        call = value
    else:
        from asgiref.sync import sync_to_async

        @cached(ttl=SHORT, stale_ttl=LONG)
        async def avalue() -> int:
            await sync_to_async(look)()
            return 1

        @async_to_sync
        async def call() -> None:  # type: ignore[misc]
            await avalue()
            deadline = time.monotonic() + 30
            while background._tasks and time.monotonic() < deadline:
                await asyncio.sleep(0.01)

    token = VARIABLE.set("the caller's")
    with transaction.atomic():
        call()
        age()
        call()
        wait_for(lambda: len(seen) == 2, "it is renewed")
    VARIABLE.reset(token)
    assert seen == [("the caller's", True), ("nothing", False)]


def test_a_loop_that_ends_gives_the_renewal_up_for_the_next_one() -> None:
    calls = 0
    slow = True

    @cached(ttl=SHORT, stale_ttl=LONG)
    async def value() -> int:
        nonlocal calls
        calls += 1
        number = calls
        if number > 1 and slow:
            await asyncio.sleep(60)
        return number

    assert async_to_sync(value)() == 1
    age()

    async def begin() -> int:
        found = await value()
        while calls < 2:
            await asyncio.sleep(0.01)
        return found

    assert asyncio.run(begin()) == 1
    slow = False

    async def finish() -> None:
        deadline = time.monotonic() + 30
        while await value() == 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(finish())


def test_more_renewals_than_can_wait_are_left_for_later(numbers: Numbers) -> None:
    @cached(ttl=SHORT, stale_ttl=LONG)
    def value(number: int) -> int:
        return numbers() if first[number] else number

    count = MAX_PENDING + 20
    first = [False] * count
    for number in range(count):
        value(number)
    first = [True] * count
    age()
    assert [value(number) for number in range(count)] == list(range(count))
    assert len(background.under_way) == MAX_PENDING
    numbers.proceed.set()
    wait_for(lambda: not background.under_way, "all that waited are renewed")
    first = [False] * count


def test_where_no_thread_can_be_begun_it_is_left_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    fresh, done = BackgroundRefreshes(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(10):
            fresh.run(("key", b""), done.set)
    assert not done.is_set()
    fresh.run(("key", b""), done.set)
    assert done.wait(30)


def test_a_thread_that_has_nothing_to_do_is_used_again() -> None:
    def threads() -> int:
        return sum(each.name == "cache-layer-refresh" for each in threading.enumerate())

    before, fresh = threads(), BackgroundRefreshes()
    for number in range(8):
        fresh.run((f"key {number}", b""), lambda: None)
        wait_for(lambda: not fresh.under_way, "the renewal ends")
        # It says that it waits a moment later.
        time.sleep(0.05)
    assert threads() - before < THREADS


def test_any_length_of_time_is_kept() -> None:
    @cached(ttl=1e12, stale_ttl=1e15, refresh_before=1, tags=["a"])
    def value() -> int:
        return 1

    value()
    assert cache.get(value.cache_key()) == value() == 1
    assert cache.ttl(value.cache_key()) >= 1e12
    invalidate_tags("a")
    assert cache.get(value.cache_key()) is None


def test_lifetimes_differ_at_random() -> None:
    @cached(ttl=1000, jitter=500)
    def value(number: int) -> int:
        return number

    lives = set()
    for number in range(20):
        value(number)
        lives.add(cache.ttl(value.cache_key(number)))
    assert len(lives) > 3
    assert min(lives) >= 499
    assert max(lives) <= 1000


def test_times_that_do_not_go_together_are_refused() -> None:
    for times, problem in [
        ({"stale_ttl": -1}, "from 0 on"),
        ({"jitter": float("inf")}, "finite"),
        ({"refresh_before": float("nan")}, "finite"),
        ({"ttl": 10, "refresh_before": 10}, "less than ttl"),
        ({"ttl": 10, "jitter": 5, "refresh_before": 5}, "less than ttl"),
        ({"ttl": 0, "stale_ttl": 5}, "nothing is kept"),
        ({"ttl": FOREVER, "stale_ttl": 5}, "no end"),
        ({"fail_safe": True}, "stale_ttl"),
    ]:
        with pytest.raises(ValueError, match=problem):
            cached(**times)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="number of seconds"):
        cached(stale_ttl="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="number of seconds"):
        cached(jitter=True)
