"""Callers who miss one key together: who computes, who waits, who gets what."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.test import override_settings

from cache_layer import cache_invalidate, cached, metrics
from cache_layer.backends.operations.leases import Claim, Lease
from cache_layer.functions.compute import Sleep
from cache_layer.functions.singleflight import acquire, finish

pytestmark = pytest.mark.usefixtures("store")


class Calls(list[Any]):
    """Counts calls from threads and tasks."""


def run_together(function: Callable[[], Any], count: int) -> list[Any]:
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait(30)
        return function()

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run) for _ in range(count)]
        return [future.exception(60) or future.result() for future in futures]


def test_threads_that_miss_together_run_the_function_once() -> None:
    calls = Calls()

    @cached()
    def slow(x: int) -> list[int]:
        calls.append(x)
        time.sleep(0.1)
        return [x]

    @cached()
    def quick(x: int) -> list[int]:
        calls.append(x)
        return [x]

    assert run_together(lambda: slow(1), 100) == [[1]] * 100
    assert run_together(lambda: quick(2), 30) == [[2]] * 30
    assert calls == [1, 2]


def test_tasks_of_several_loops_that_miss_together_run_the_function_once() -> None:
    calls = Calls()

    @cached()
    async def slow(x: int) -> list[int]:
        calls.append(x)
        await asyncio.sleep(0.2)
        return [x]

    async def many() -> list[Any]:
        return await asyncio.gather(*[slow(1) for _ in range(100)])

    assert run_together(lambda: asyncio.run(many()), 3) == [[[1]] * 100] * 3
    assert calls == [1]


def test_what_is_not_kept_is_still_computed_once_for_those_who_wait() -> None:
    calls = Calls()

    @cached()
    def nothing() -> None:
        calls.append(1)
        time.sleep(0.3)

    assert run_together(nothing, 10) == [None] * 10
    assert calls == [1]


@pytest.mark.parametrize("ttl", [60, 0])
def test_nobody_is_given_the_object_of_another(ttl: int) -> None:
    @cached(ttl)
    def rows() -> list[int]:
        time.sleep(0.1)
        return [1]

    first, second, *_ = run_together(rows, 8)
    first.append(2)
    assert second == rows() == [1]


def test_what_cannot_be_stored_is_not_shared_either() -> None:
    @cached()
    def rows() -> Iterator[int]:
        time.sleep(0.1)
        return iter([1, 2])

    assert [list(found) for found in run_together(rows, 4)] == [[1, 2]] * 4


def test_with_lock_callers_of_one_process_do_not_wait_for_another() -> None:
    calls = Calls()

    @cached(lock=True)
    def slow(x: int) -> int:
        calls.append(x)
        time.sleep(0.01)
        return x

    @cached(lock=True)
    async def aslow(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.01)
        return x

    async def together(x: int) -> list[int]:
        return await asyncio.gather(*[aslow(x) for _ in range(20)])

    # Hanging, it would take as long as a lease, and computed without one, more calls.
    begun = time.monotonic()
    for x in range(5):
        assert run_together(lambda x=x: slow(x), 16) == [x] * 16
        assert asyncio.run(together(-1 - x)) == [-1 - x] * 20
    assert sorted(calls) == list(range(-5, 5))
    assert time.monotonic() - begun < 50


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another process had placed the lease."""
    monkeypatch.setattr(
        "cache_layer.functions.compute.acquire", lambda token, owner: acquire(token, owner=False)
    )


@pytest.mark.usefixtures("elsewhere")
def test_with_lock_a_caller_waits_as_long_as_another_process_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @cached(lock=True, key_prefix="elsewhere")
    def compute() -> int:
        return len(pauses)

    def pause(sleep: Sleep) -> None:
        pauses.append(sleep)
        if len(pauses) == 3:
            # The other process fails, or its result is invalidated.
            compute.invalidate()

    pauses: list[Sleep] = []
    monkeypatch.setattr(Sleep, "do", pause)
    assert compute() == 3


@pytest.mark.usefixtures("elsewhere")
def test_with_lock_a_caller_asks_less_and_less_often_while_another_process_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @cached(lock=True, key_prefix="elsewhere")
    def compute() -> int:
        return len(pauses)

    def pause(sleep: Sleep) -> None:
        pauses.append(sleep._seconds)
        if len(pauses) == 10:
            compute.invalidate()

    pauses: list[float] = []
    monkeypatch.setattr(Sleep, "do", pause)
    assert compute() == 10
    assert pauses[:4] == sorted(set(pauses[:4]))
    assert max(pauses) == pauses[-1] <= 0.1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_in_a_loop_that_is_closed_does_not_disturb_the_leader() -> None:
    token = uuid.uuid4().bytes
    flight, _leads = acquire(token, owner=True)
    assert flight is not None
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(flight.await_(60))
    loop.run_until_complete(asyncio.sleep(0))
    assert not waiting.done()
    # As when a server drops its loop with all that is in it.
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    finish(flight)
    assert acquire(token, owner=False) == (None, False)


def test_a_call_counts_once_however_long_it_waits() -> None:
    @cached(namespace="waiting")
    def slow(x: int) -> int:
        time.sleep(0.1)
        return x

    metrics.reset()
    run_together(lambda: slow(1), 8)
    found = metrics.snapshot()["metrics"]
    assert found["waiting:hits"] + found["waiting:misses"] == 8
    assert min(found["waiting:hits"], found["waiting:misses"]) >= 0


def test_a_failing_leader_fails_only_itself() -> None:
    calls = Calls()

    @cached()
    def once_broken() -> int:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.2)
            raise LookupError
        return 5

    outcomes = run_together(once_broken, 8)
    assert sum(isinstance(outcome, LookupError) for outcome in outcomes) == 1
    assert outcomes.count(5) == 7


def test_a_leader_that_fails_gives_back_a_lease_that_another_process_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @cached()
    def fail() -> int:
        raise LookupError

    def of_another(claim: Claim, token: bytes, owner: bool) -> Lease:
        placed.append(owner)
        return Lease(token, owner=False)

    placed: list[bool] = []
    monkeypatch.setattr(Claim, "_lease", of_another)
    for _call in range(2):
        with pytest.raises(LookupError):
            fail()
    # The second call found no lease of the first.
    assert placed == [True, True]


def test_who_waited_for_a_failure_does_not_queue_up() -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    @cached()
    def broken() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.3)
        with lock:
            running -= 1
        raise LookupError

    outcomes = run_together(broken, 8)
    assert all(isinstance(outcome, LookupError) for outcome in outcomes)
    assert most > 1


async def test_cancelling_the_leader_does_not_cancel_who_waits() -> None:
    calls = Calls()

    @cached()
    async def slow() -> int:
        calls.append(1)
        await asyncio.sleep(0.1 if len(calls) > 1 else 30)
        return len(calls)

    leader = asyncio.create_task(slow())
    while not calls:
        await asyncio.sleep(0.01)
    followers = [asyncio.create_task(slow()) for _ in range(10)]
    await asyncio.sleep(0.05)
    leader.cancel()
    assert await asyncio.gather(*followers) == [2] * 10
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_cancelling_who_waits_does_not_disturb_the_leader() -> None:
    @cached()
    async def slow() -> int:
        await asyncio.sleep(0.2)
        return 1

    leader = asyncio.create_task(slow())
    await asyncio.sleep(0.05)
    follower = asyncio.create_task(slow())
    await asyncio.sleep(0.05)
    follower.cancel()
    assert await leader == 1
    assert await slow() == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_ends_in_the_middle_leaves_the_key_usable() -> None:
    calls = Calls()

    @cached()
    async def slow() -> int:
        calls.append(1)
        await asyncio.sleep(30 if len(calls) == 1 else 0)
        return 7

    async def leave() -> None:
        task = asyncio.create_task(slow())
        while not calls:
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(leave())
    gc.collect()
    assert asyncio.run(slow()) == 7


def test_recursion_with_the_same_key_does_not_wait_for_itself() -> None:
    depth = 0

    @cached(include_args=False)
    def recursive(n: int) -> int:
        nonlocal depth
        depth += 1
        return n if n == 0 else recursive(n - 1) + 1

    @cached(include_args=False)
    async def arecursive(n: int) -> int:
        if n == 0:
            return 0
        (inner,) = await asyncio.gather(arecursive(n - 1))
        return inner + 1

    assert recursive(3) == 3
    assert depth == 4
    assert async_to_sync(arecursive)(3) == 3


def test_who_comes_after_an_invalidation_never_gets_what_was_begun_before_it() -> None:
    value = "old"
    begun = threading.Event()
    go_on = threading.Event()

    @cached(key_prefix="race")
    def read() -> str:
        seen = value
        if seen == "old":
            begun.set()
            go_on.wait(30)
        return seen

    @cache_invalidate("race:read:*")
    def write() -> None:
        nonlocal value
        value = "new"

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(read)
        begun.wait(30)
        write()
        assert read() == "new"
        go_on.set()
        assert early.result(30) == "old"
    assert read() == "new"


@pytest.mark.parametrize("how", ["delete", "clear", "pattern", "invalidate"])
def test_any_deletion_keeps_a_value_begun_before_it_out(how: str) -> None:
    seen = Calls()

    @cached(key_prefix="fence", namespace="ns")
    def read() -> int:
        seen.append(1)
        if len(seen) == 1:
            if how == "delete":
                cache.delete(read.cache_key())
            elif how == "clear":
                cache.clear()
            elif how == "pattern":
                cache.delete_pattern("ns:fence:*")  # type: ignore[attr-defined]
            else:
                read.invalidate()
        return len(seen)

    assert read() == 1
    assert read() == 2
    assert read() == 2


def test_functions_that_call_each_other_in_two_threads_do_not_wait_for_each_other() -> None:
    both_run = threading.Barrier(2)
    calls = Calls()

    @cached(key_prefix="a")
    def a(first: bool) -> str:
        calls.append("a")
        if len(calls) <= 2:
            both_run.wait(30)
            return f"a{b(True)}"
        return "a"

    @cached(key_prefix="b")
    def b(first: bool) -> str:
        calls.append("b")
        if len(calls) <= 2:
            both_run.wait(30)
            return f"b{a(True)}"
        return "b"

    # Longer than the test would wait.
    with override_settings(CACHE_LAYER_LEASE_TTL=600):
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(a, True), pool.submit(b, True)]
            found = [future.result(60) for future in futures]
    assert set(found) <= {"ab", "ba", "aba", "bab"}


def test_functions_that_call_each_other_in_two_tasks_do_not_wait_for_each_other() -> None:
    calls = Calls()

    @cached(key_prefix="a")
    async def a() -> str:
        calls.append("a")
        if len(calls) > 2:
            return "a"
        await both_run.wait()
        return f"a{await b()}"

    @cached(key_prefix="b")
    async def b() -> str:
        calls.append("b")
        if len(calls) > 2:
            return "b"
        both_run.set()
        return f"b{await a()}"

    async def together() -> list[str]:
        return await asyncio.wait_for(asyncio.gather(a(), b()), 60)

    both_run = asyncio.Event()
    with override_settings(CACHE_LAYER_LEASE_TTL=600):
        found = async_to_sync(together)()
    assert set(found) <= {"ab", "ba", "aba", "bab"}
