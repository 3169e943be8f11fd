"""``@cached`` on generators: chunks replayed, read along, and only complete runs kept."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.test import override_settings

from cache_layer import cached, invalidate_tags, metrics
from tests.cache_layer.caches import wait_for

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(params=["called", "awaited"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Source:
    """A generator function of either kind that counts its runs."""

    def __init__(self, kind: str, chunks: list[Any], **options: Any) -> None:
        self.runs = 0
        self.closed = 0
        self.kind = kind
        self.chunks = chunks
        self.function = cached(key_prefix="source", **options)(
            self._awaited() if kind == "awaited" else self._called()
        )

    def _called(self) -> Any:
        def stream(name: str = "") -> Iterator[Any]:
            self.runs += 1
            try:
                for chunk in self.chunks:
                    if isinstance(chunk, Exception):
                        raise chunk
                    yield chunk
            finally:
                self.closed += 1

        return stream

    def _awaited(self) -> Any:
        async def stream(name: str = "") -> AsyncIterator[Any]:
            self.runs += 1
            try:
                for chunk in self.chunks:
                    if isinstance(chunk, Exception):
                        raise chunk
                    yield chunk
            finally:
                self.closed += 1

        return stream

    def read(self, *args: Any, at_most: int | None = None, function: Any = None) -> list[Any]:
        function = function or self.function
        if self.kind == "called":
            found = []
            chunks = function(*args)
            for chunk in chunks:
                found.append(chunk)
                if len(found) == at_most:
                    chunks.close()
            return found

        async def read() -> list[Any]:
            found = []
            async with aclosing(function(*args)) as chunks:
                async for chunk in chunks:
                    found.append(chunk)
                    if len(found) == at_most:
                        break
            return found

        return async_to_sync(read)()

    def do(self, name: str, *args: Any) -> Any:
        method = getattr(self.function, name)
        return method(*args) if self.kind == "called" else async_to_sync(method)(*args)


def test_chunks_of_a_complete_run_are_replayed(kind: str) -> None:
    source = Source(kind, ["one", {"two": 2}, None, b"four"])
    assert source.read("a") == ["one", {"two": 2}, None, b"four"]
    assert source.read("a") == ["one", {"two": 2}, None, b"four"]
    assert source.runs == 1
    assert source.read("b") == ["one", {"two": 2}, None, b"four"]
    assert source.runs == 2


def test_a_run_without_chunks_is_kept(kind: str) -> None:
    source = Source(kind, [])
    assert (source.read(), source.read()) == ([], [])
    assert source.runs == 1


def test_a_run_that_is_left_is_closed_and_not_kept(kind: str) -> None:
    source = Source(kind, [1, 2, 3])
    assert source.read(at_most=2) == [1, 2]
    assert source.closed == 1
    assert source.read() == [1, 2, 3]
    assert source.runs == 2


def test_a_run_that_raises_is_not_kept(kind: str) -> None:
    source = Source(kind, [1, LookupError("gone")])
    for _time in range(2):
        with pytest.raises(LookupError, match="gone"):
            source.read()
    source.chunks = [1, 2]
    assert source.read() == [1, 2]
    assert source.read() == [1, 2]
    assert source.runs == 3


def test_a_reader_that_changes_a_chunk_changes_its_own(kind: str) -> None:
    source = Source(kind, [{"text": "a"}])
    source.read()[0]["text"] = "changed"
    source.read()[0]["text"] = "changed"
    assert source.read() == [{"text": "a"}]


def test_a_chunk_that_cannot_be_stored_is_passed_on(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = threading.Lock()
    source = Source(kind, [1, odd, 3])
    assert source.read() == [1, odd, 3]
    assert source.read() == [1, odd, 3]
    assert source.runs == 2
    assert caplog.text.count("yielded a chunk that cannot be stored") == 1


@pytest.mark.parametrize("stored", ["text", [1, 2], [b"\xff"]], ids=["text", "list", "bytes"])
def test_what_somebody_else_stored_under_its_key_is_not_replayed(kind: str, stored: Any) -> None:
    source = Source(kind, [1, 2])
    cache.set(source.function.cache_key(), stored)
    assert source.read() == [1, 2]
    assert source.runs == 1


def test_a_run_larger_than_the_largest_value_is_passed_on(kind: str) -> None:
    source = Source(kind, ["x" * 1000] * 20)
    with override_settings(CACHE_LAYER_MAX_VALUE_BYTES=10_000):
        assert source.read() == source.read() == ["x" * 1000] * 20
    assert source.runs == 2


def test_its_methods_forget(kind: str) -> None:
    source = Source(kind, [1, 2], tags=["user:{name}"])
    source.read("a")
    assert source.do("invalidate", "a") is True
    assert source.do("invalidate", "a") is False
    source.read("a")
    assert source.runs == 2
    invalidate_tags("user:a")
    source.read("a")
    assert source.runs == 3
    source.do("invalidate_all")
    source.read("a")
    assert source.runs == 4
    source.chunks = [3]
    assert source.read("a", function=source.function.refresh) == [3]
    assert source.read("a") == [3]
    assert source.runs == 5


def test_what_began_before_an_invalidation_is_not_kept() -> None:
    source = Source("called", [1, 2])
    chunks = source.function("a")
    assert next(chunks) == 1
    source.function.invalidate("a")
    assert list(chunks) == [2]
    source.read("a")
    assert source.runs == 2


def test_whoever_comes_after_an_invalidation_does_not_read_the_old_run_along() -> None:
    source = Source("called", [1, 2])
    old = source.function("a")
    assert next(old) == 1
    source.function.invalidate("a")
    source.chunks = [3, 4]
    assert source.read("a") == [3, 4]
    assert list(old) == [2]
    assert source.read("a") == [3, 4]


def test_readers_share_a_run_each_at_their_own_pace() -> None:
    source = Source("called", [1, 2, 3])
    slow, quick = source.function(), source.function()
    assert next(slow) == 1
    assert list(quick) == [1, 2, 3]
    assert list(slow) == [2, 3]
    assert source.runs == 1


def test_a_run_goes_on_while_a_reader_is_left() -> None:
    source = Source("called", [1, 2, 3])
    first, second = source.function(), source.function()
    assert (next(first), next(second)) == (1, 1)
    first.close()
    assert source.closed == 0
    assert list(second) == [2, 3]
    assert source.read() == [1, 2, 3]
    assert source.runs == 1


def test_an_abandoned_reader_leaves_the_run() -> None:
    source = Source("called", [1, 2, 3])
    chunks = source.function()
    next(chunks)
    del chunks
    gc.collect()
    assert source.closed == 1


def test_all_readers_see_what_the_run_raises() -> None:
    source = Source("called", [1, LookupError("gone")])
    first, second = source.function(), source.function()
    assert (next(first), next(second)) == (1, 1)
    for reader in (first, second):
        with pytest.raises(LookupError):
            next(reader)
    assert source.runs == 1


def test_threads_read_one_run_along() -> None:
    runs: list[str] = []
    began = threading.Event()

    @cached()
    def stream(name: str) -> Iterator[int]:
        runs.append(name)
        for number in range(200):
            yield number
            began.wait(30)

    barrier = threading.Barrier(8)

    def read() -> list[int]:
        barrier.wait(30)
        chunks = stream("a")
        found = [next(chunks)]
        began.set()
        return found + list(chunks)

    with ThreadPoolExecutor(8) as pool:
        found = [future.result(60) for future in [pool.submit(read) for _ in range(8)]]
    assert found == [list(range(200))] * 8
    assert runs == ["a"]


def test_a_generator_that_reads_itself_runs_again() -> None:
    @cached()
    def stream(depth: int) -> Iterator[int]:
        yield depth
        if len(runs) < 2:
            runs.append(depth)
            yield from stream(depth)

    runs: list[int] = []
    assert list(stream(1)) == [1, 1, 1]


def test_tasks_read_one_run_along() -> None:
    runs: list[int] = []

    @cached()
    async def stream(name: str) -> AsyncIterator[int]:
        runs.append(1)
        for number in range(50):
            await asyncio.sleep(0)
            yield number

    async def read() -> list[int]:
        return [chunk async for chunk in stream("a")]

    async def everybody() -> list[list[int]]:
        return await asyncio.gather(*[read() for _ in range(20)])

    assert async_to_sync(everybody)() == [list(range(50))] * 20
    assert len(runs) == 1


def test_a_cancelled_reader_leaves_the_others_their_run() -> None:
    ended: list[str] = []

    @cached()
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            await going_on.wait()
            yield 2
        finally:
            ended.append("closed")

    async def read(seen: asyncio.Event) -> list[int]:
        found = []
        async for chunk in stream():
            found.append(chunk)
            seen.set()
        return found

    async def both() -> list[int]:
        global_events = asyncio.Event(), asyncio.Event()
        first, second = (asyncio.create_task(read(event)) for event in global_events)
        for event in global_events:
            await event.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert ended == []
        going_on.set()
        return await second

    going_on = asyncio.Event()
    assert async_to_sync(both)() == [1, 2]
    assert ended == ["closed"]


def test_the_last_reader_that_is_cancelled_ends_the_run_and_its_lease() -> None:
    ended: list[str] = []

    @cached()
    async def stream(endless: list[bool]) -> AsyncIterator[int]:
        try:
            yield 1
            if wait:
                await asyncio.Event().wait()
            yield 2
        finally:
            ended.append("closed")

    async def cancelled() -> None:
        async def read() -> None:
            async for _chunk in stream([]):
                seen.set()

        seen = asyncio.Event()
        task = asyncio.create_task(read())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    wait = True
    async_to_sync(cancelled)()
    wait_for(lambda: ended == ["closed"], "the generator has cleaned up")
    wait = False

    async def again() -> list[int]:
        return [chunk async for chunk in stream([])]

    assert async_to_sync(again)() == [1, 2]
    assert async_to_sync(again)() == [1, 2]
    assert ended == ["closed", "closed"]


def test_who_comes_while_a_run_that_was_left_cleans_up_has_a_run_of_their_own() -> None:
    runs: list[int] = []

    @cached()
    async def stream() -> AsyncIterator[int]:
        runs.append(len(runs))
        number = runs[-1]
        try:
            yield number
            if number == 0:
                await asyncio.Event().wait()
        finally:
            if number == 0:
                cleaning.set()
                await may_end.wait()

    async def story() -> list[int]:
        left = stream()
        assert await anext(left) == 0
        closing = asyncio.create_task(left.aclose())
        await cleaning.wait()
        try:
            return [chunk async for chunk in stream()]
        finally:
            may_end.set()
            await closing

    cleaning, may_end = asyncio.Event(), asyncio.Event()
    assert async_to_sync(story)() == [1]


@pytest.mark.parametrize("store", ["redis"], indirect=True)
async def test_a_reader_cancelled_at_any_moment_leaves_no_lease(redis_url: str) -> None:
    @cached()
    async def stream(number: int) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield number

    async def read(number: int) -> list[int]:
        return [chunk async for chunk in stream(number)]

    await cache.aget("connected")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        for number in range(200):
            task = asyncio.create_task(read(number))
            await asyncio.sleep(random.random() / 1000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.exists(cache.make_key(stream.cache_key(number))) == 0


def test_methods_are_cached() -> None:
    class Model:
        runs = 0

        @cached(key_prefix="model")
        def stream(self, text: str) -> Iterator[str]:
            Model.runs += 1
            yield from text

        def __reduce__(self) -> Any:
            return Model, ()

    class Stable:
        @cached()
        @staticmethod
        def stream(text: str) -> Iterator[str]:
            Model.runs += 1
            yield from text

    assert list(Stable.stream("ab")) == list(Stable().stream("ab")) == ["a", "b"]
    assert Model.runs == 1
    # An object without a stable form: nothing is kept.
    assert list(Model().stream("ab")) == list(Model().stream("ab")) == ["a", "b"]
    assert Model.runs == 3


def test_a_wrong_call_raises_at_once(kind: str) -> None:
    source = Source(kind, [1])
    with pytest.raises(TypeError):
        source.function(1, 2, 3)


@pytest.mark.parametrize("option", [{"lock": True}, {"stale_ttl": 5}, {"refresh_before": 5}])
def test_options_of_functions_are_refused(kind: str, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are for functions"):
        Source(kind, [], ttl=60, **option)


def test_metrics_count_hits_misses_and_costs(kind: str) -> None:
    metrics.reset()
    source = Source(kind, ["a", "bc"], namespace="llm", cost=lambda chunks: len("".join(chunks)))
    source.read()
    counted = metrics.snapshot()["metrics"]
    assert (counted["llm:misses"], counted["llm:hits"], counted["llm:spent"]) == (1, 0, 3)
    assert "llm:saved" not in counted
    source.read()
    source.read()
    counted = metrics.snapshot()["metrics"]
    assert (counted["llm:misses"], counted["llm:hits"]) == (1, 2)
    assert (counted["llm:spent"], counted["llm:saved"]) == (3, 6)
