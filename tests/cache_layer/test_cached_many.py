"""``@cached_many``: one round trip, one call for what is missing, a key for each result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache, caches
from django.test import override_settings

from cache_layer import cache_invalidate, cached, cached_many, invalidate_tags, metrics
from cache_layer.backends import ResilientCache
from cache_layer.functions import singleflight
from tests.cache_layer.caches import is_leased, wait_for
from tests.cache_layer.conftest import PATIENT
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("store")


class Embedding:
    """A function of many texts, of either kind, that remembers what it was asked."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.asked: list[list[str]] = []
        self.kind = kind
        self.fails = False
        options.setdefault("key_prefix", "embedding")

        def embed(texts: list[str], model: str = "small") -> list[Any]:
            self.asked.append(list(texts))
            if self.fails:
                raise ConnectionError("no model")
            return [[text, model] for text in texts]

        async def aembed(texts: list[str], model: str = "small") -> list[Any]:
            return embed(texts, model)

        self.function: Any = cached_many(**options)(embed if kind == "called" else aembed)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.do("__call__", *args, **kwargs)

    def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        method = getattr(self.function, name)
        if self.kind == "called":
            return method(*args, **kwargs)
        return async_to_sync(method)(*args, **kwargs)


@pytest.fixture(params=["called", "awaited"])
def embed(request: pytest.FixtureRequest) -> Embedding:
    return Embedding(request.param)


def test_only_what_is_missing_is_computed_once_in_the_callers_order(embed: Embedding) -> None:
    assert embed(["a", "b"]) == [["a", "small"], ["b", "small"]]
    assert embed(["b", "c", "a", "c"]) == [
        ["b", "small"],
        ["c", "small"],
        ["a", "small"],
        ["c", "small"],
    ]
    assert embed(text for text in "cab") == [["c", "small"], ["a", "small"], ["b", "small"]]
    assert embed.asked == [["a", "b"], ["c"]]


def test_no_items_ask_for_nothing(embed: Embedding) -> None:
    assert embed([]) == []
    assert embed.asked == []


def test_other_arguments_make_other_results(embed: Embedding) -> None:
    embed(["a"])
    assert embed(["a"], model="large") == [["a", "large"]]
    assert embed(texts=["a"], model="small") == [["a", "small"]]
    assert embed.asked == [["a"], ["a"]]


def test_many_items_are_found_again(embed: Embedding) -> None:
    texts = [str(number) for number in range(1200)]
    expected = [[text, "small"] for text in texts]
    assert embed(texts) == expected
    assert embed(texts[::-1]) == expected[::-1]
    assert len(embed.asked) == 1


def test_it_forgets_items_all_and_tags() -> None:
    embed = Embedding("called", tags=["text:{texts}"], namespace="ai")
    embed(["a", "b", "c"])
    assert embed.do("invalidate", ["a", "x"]) == 1
    embed(["a", "b", "c"])
    invalidate_tags("text:b", namespace="ai")
    embed(["a", "b", "c"])
    embed.do("invalidate_all")
    embed(["a", "b", "c"])

    @cache_invalidate("embedding:embed:{text}:*", namespace="ai")
    def changed(text: str) -> None:
        pass

    changed("c")
    embed(["a", "b", "c"])
    assert embed.asked == [["a", "b", "c"], ["a"], ["b"], ["a", "b", "c"], ["c"]]


def test_a_result_that_is_stored_while_others_are_read_is_not_computed() -> None:
    def cost(result: list[str]) -> int:
        # Counted for "a", between the reading of both and the claim of "b".
        if result[0] == "a" and not stored:
            stored.append("b")
            other("b")
        return 1

    stored = ["a"]
    other = Embedding("called")
    counting = Embedding("called", cost=cost)
    counting(["a"])
    stored.clear()
    assert counting(["a", "b"]) == [["a", "small"], ["b", "small"]]
    assert counting.asked == [["a"]]
    assert other.asked == [["b"]]


def test_a_failure_keeps_nothing_and_the_next_call_tries_again(embed: Embedding) -> None:
    embed(["a"])
    embed.fails = True
    with pytest.raises(ConnectionError, match="no model"):
        embed(["a", "b"])
    assert embed(["a"]) == [["a", "small"]]
    embed.fails = False
    assert embed(["a", "b"]) == [["a", "small"], ["b", "small"]]
    assert embed(["a", "b"]) == [["a", "small"], ["b", "small"]]
    assert embed.asked == [["a"], ["b"], ["b"]]


@pytest.mark.parametrize(
    ("returned", "error"), [([1], ValueError), ({}, TypeError), (3, TypeError)]
)
def test_another_number_of_results_is_an_error(returned: Any, error: type[Exception]) -> None:
    @cached_many()
    def wrong(items: list[int]) -> Any:
        return returned

    for _time in range(2):
        with pytest.raises(error, match="wrong"):
            wrong([1, 2])


def test_none_is_kept_if_that_is_wanted() -> None:
    asked: list[int] = []

    def nothing(items: list[int]) -> list[None]:
        asked.extend(items)
        return [None for _item in items]

    forgets, keeps = (
        cached_many(key_prefix="a")(nothing),
        cached_many(None, "b", cache_none=True)(nothing),
    )
    assert forgets([1, 2]) == forgets([1, 2]) == [None, None]
    assert asked == [1, 2, 1, 2]
    assert keeps([1, 2]) == keeps([1, 2]) == [None, None]
    assert asked == [1, 2, 1, 2, 1, 2]


def test_what_is_not_kept_leaves_no_lease() -> None:
    @cached_many(key_prefix="n")
    def nothing(items: list[int]) -> list[None]:
        return [None for _item in items]

    nothing([1])
    assert not is_leased(cache, key_of_one())


def key_of_one() -> str:
    """The key of a function of one item, which has the name of the one above."""

    @cached(key_prefix="n")
    def nothing(items: int) -> None: ...

    return nothing.cache_key(1)


def test_what_cannot_be_a_key_or_stored_is_computed_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[Any] = []

    @cached_many()
    def same(items: list[Any]) -> list[Any]:
        asked.append(items)
        return list(items)

    odd, lock = object(), threading.Lock()
    assert same([1, odd, 2]) == [1, odd, 2]
    assert same([1, odd, 2]) == [1, odd, 2]
    assert asked == [[odd, 1, 2], [odd]] or asked == [[1, odd, 2], [odd]]

    @cached_many()
    def locks(items: list[int]) -> list[Any]:
        return [lock if item else item for item in items]

    assert locks([0, 1]) == locks([0, 1]) == [0, lock]
    assert "an argument without a stable form" in caplog.text
    assert "a value that cannot be stored" in caplog.text


def test_methods_and_a_named_argument_are_allowed() -> None:
    class Model:
        @cached_many(over="texts")
        @staticmethod
        def embed(model: str, texts: list[str]) -> list[str]:
            asked.append(texts)
            return [f"{model} {text}" for text in texts]

        @cached_many()
        @classmethod
        def names(cls, texts: list[str]) -> list[str]:
            asked.append(texts)
            return [f"{cls.__name__} {text}" for text in texts]

        @cached_many()
        def own(self, texts: list[str]) -> list[str]:
            return [f"{self.__class__.__name__} {text}" for text in texts]

        @cached_many()
        async def awaited(self, texts: list[str]) -> list[str]:
            return [f"{self.__class__.__name__} {text}" for text in texts]

    asked: list[list[str]] = []
    assert Model.embed("m", ["a"]) == Model().embed("m", ["a"]) == ["m a"]
    assert Model.names(["a"]) == Model().names(["a"]) == ["Model a"]
    assert asked == [["a"], ["a"]]
    assert Model().own(["a", "b"]) == ["Model a", "Model b"]
    assert async_to_sync(Model().awaited)(["a"]) == ["Model a"]
    assert Model.own(Model(), ["a"]) == ["Model a"]


def test_functions_that_it_cannot_call_are_refused() -> None:
    with pytest.raises(TypeError, match="by name"):
        cached_many()(lambda *items: items)
    with pytest.raises(ValueError, match="no argument 'y'"):
        cached_many(over="y", key_prefix="p")(lambda x: x)
    with pytest.raises(TypeError, match="parentheses"):
        cached_many(lambda x: x)  # type: ignore[arg-type]

    def stream(items: list[int]) -> Iterator[int]:
        yield from items

    with pytest.raises(TypeError, match="returns no results"):
        cached_many()(stream)


def test_threads_compute_each_item_once() -> None:
    asked: list[str] = []
    all_in = threading.Barrier(4)

    @cached_many()
    def embed(texts: list[str]) -> list[str]:
        asked.extend(texts)
        return [text.upper() for text in texts]

    def call(texts: list[str]) -> list[str]:
        all_in.wait(30)
        return embed(texts)

    batches = [["a", "b", "c"], ["b", "c", "d"], ["c", "d", "a"], ["d", "a", "b"]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, batches))
    assert found == [[text.upper() for text in batch] for batch in batches]
    assert sorted(asked) == ["a", "b", "c", "d"]


def test_what_began_before_an_invalidation_is_not_kept() -> None:
    began, go_on = threading.Event(), threading.Event()
    value = "old"

    @cached_many()
    def embed(texts: list[str]) -> list[str]:
        read = value
        began.set()
        go_on.wait(30)
        return [read for _text in texts]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(embed, ["a", "b"])
        assert began.wait(30)
        value = "new"
        embed.invalidate(["a"])
        go_on.set()
        assert first.result(30) == ["old", "old"]
    assert embed(["a", "b"]) == ["new", "old"]


@pytest.mark.parametrize("computed", [None, threading.Lock()], ids=["None", "unstorable"])
def test_callers_who_wait_for_what_is_not_kept_do_not_compute_one_after_the_other(
    computed: Any,
) -> None:
    """They get the result that is there, or compute their own at the same time."""
    asked: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    @cached_many()
    def look_up(texts: list[str]) -> list[Any]:
        asked.extend(texts)
        began.set()
        go_on.wait(30)
        return [computed for _text in texts]

    def waiting() -> int:
        return sum(len(flight._wakers) for flight in [*singleflight._flights.values()])

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(look_up, ["a"])
        assert began.wait(30)
        others = [pool.submit(look_up, ["a"]) for _number in range(4)]
        wait_for(lambda: waiting() == 4, "all wait for the first")
        go_on.set()
        assert [each.result(30) for each in [first, *others]] == [[computed]] * 5
    assert asked == (["a"] if computed is None else ["a"] * 5)


def test_a_cancelled_call_leaves_no_lease() -> None:
    asked: list[list[str]] = []

    @cached_many()
    async def embed(texts: list[str]) -> list[str]:
        asked.append(texts)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return texts

    async def cancelled() -> list[str]:
        task = asyncio.create_task(embed(["a"]))
        waiting = asyncio.create_task(embed(["a"]))
        while not asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await waiting

    assert async_to_sync(cancelled)() == ["a"]
    assert asked == [["a"], ["a"]]


def test_metrics_and_costs_are_those_of_items(embed: Embedding) -> None:
    metrics.reset()
    counting = Embedding(embed.kind, namespace="ai", cost=lambda result: len(result[0]))
    counting(["a", "bcd"])
    counting(["bcd", "ef"])
    counted = metrics.snapshot()["metrics"]
    assert (counted["ai:hits"], counted["ai:misses"], counted["ai:sets"]) == (1, 3, 3)
    assert (counted["ai:spent"], counted["ai:saved"]) == (6, 3)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_hit_of_many_is_one_command(store: str, redis_server: RedisServer) -> None:
    # A server of its own: the commands of other tests would be counted, too.
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": redis_server.url}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": PATIENT}}):
        embed = Embedding("called")
        texts = [str(number) for number in range(100)]
        embed(texts)
        backend = caches["default"]
        assert isinstance(backend, ResilientCache)
        client = backend.client.get_client(write=True)

        def count() -> int:
            stats = client.info("commandstats")
            return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")

        before = count()
        embed(texts)
        assert count() - before == 1
        backend.store.close()
