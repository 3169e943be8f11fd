"""An awaited cached function raises what the function raises, whoever computes and waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache

from cache_layer import cached
from tests.cache_layer.caches import is_leased

pytestmark = pytest.mark.usefixtures("store")


class Failing:
    """An awaited function that fails as often as it is told, and counts its calls."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self.failures = failures
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        await self.may_end.wait()
        if number <= self.failures:
            raise LookupError(f"failure {number}")
        return number


def function(failing: Failing, **options: Any) -> Any:
    @cached(key_prefix="failing", **options)
    async def fetch(name: str) -> int:
        return await failing()

    return fetch


@pytest.mark.parametrize("options", [{}, {"lock": True}, {"tags": ["t"]}, {"cache_none": True}])
async def test_each_failing_call_raises_its_own_exception(options: dict[str, Any]) -> None:
    failing = Failing(failures=2)
    fetch = function(failing, **options)
    for number in (1, 2):
        with pytest.raises(LookupError, match=f"failure {number}"):
            await fetch("x")
    assert [await fetch("x"), await fetch("x")] == [3, 3]


async def test_a_call_that_failed_leaves_no_lease_behind() -> None:
    fetch = function(Failing(failures=1))
    with pytest.raises(LookupError):
        await fetch("x")
    assert not await asyncio.to_thread(is_leased, cache, fetch.cache_key("x"))


async def test_refresh_raises_what_the_function_raises_and_forgets_the_old_result() -> None:
    failing = Failing(failures=0)
    fetch = function(failing)
    assert await fetch("x") == 1
    failing.failures = 2
    with pytest.raises(LookupError, match="failure 2"):
        await fetch.refresh("x")
    assert await fetch("x") == 3


async def test_a_failing_leader_fails_itself_and_nobody_who_waited() -> None:
    failing = Failing(failures=1)
    failing.may_end.clear()
    fetch = function(failing)
    calls = [asyncio.create_task(fetch("x")) for _ in range(5)]
    while not failing.calls:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    failing.may_end.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(LookupError) == 1
    assert all(isinstance(outcome, int | LookupError) for outcome in outcomes)
    assert isinstance(await fetch("x"), int)


async def test_an_exception_is_the_one_that_was_raised_with_its_cause() -> None:
    class RefusedError(Exception):
        def __init__(self, code: int, reason: str) -> None:
            super().__init__(code, reason)
            self.code = code

    first = RefusedError(402, "pay first")

    @cached(key_prefix="refused")
    async def fetch() -> None:
        raise first from ValueError("the cause")

    with pytest.raises(RefusedError) as caught:
        await fetch()
    assert caught.value is first
    assert isinstance(first.__cause__, ValueError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
def test_what_ends_a_task_passes_and_frees_the_key(error: type[BaseException]) -> None:
    calls: list[int] = []

    @cached(key_prefix="ended")
    async def fetch() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return len(calls)

    async def call() -> int:
        return await fetch()

    with pytest.raises(error):
        async_to_sync(call)()
    assert not is_leased(cache, fetch.cache_key())
    cache.delete(fetch.cache_key())
    assert async_to_sync(call)() == 2
