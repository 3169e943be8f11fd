"""Which results are kept, under which keys, and what becomes of the function."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import math
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction
from django.contrib.auth import get_user_model
from django.core.cache import cache

from cache_layer import FOREVER, cache_invalidate, cached, get_cache, get_redis_manager, metrics
from cache_layer.exceptions import UnstableArgumentError
from tests.cache_layer.caches import is_leased

pytestmark = pytest.mark.usefixtures("store")


class Calls(list[Any]):
    """Counts calls from threads and tasks."""


def test_a_result_is_kept_for_equal_calls() -> None:
    calls = Calls()

    @cached(ttl=300, key_prefix="users")
    def get_user(user_id: str, deep: bool = False) -> dict[str, Any]:
        calls.append(user_id)
        return {"id": user_id, "deep": deep}

    assert get_user("42") == {"id": "42", "deep": False}
    assert get_user(user_id="42") == get_user("42", False) == get_user(deep=False, user_id="42")
    assert calls == ["42"]
    get_user("42", True)
    get_user(42)  # type: ignore[arg-type]
    assert len(calls) == 3


async def test_the_awaited_twin_keeps_its_result_for_equal_calls() -> None:
    calls = Calls()

    @cached(ttl=300, key_prefix="users")
    async def get_user(user_id: str, deep: bool = False) -> dict[str, Any]:
        calls.append(user_id)
        return {"id": user_id, "deep": deep}

    assert await get_user("42") == await get_user(user_id="42", deep=False)
    assert calls == ["42"]


async def test_the_key_is_prefix_function_and_arguments() -> None:
    @cached(key_prefix="users")
    async def get_user(user_id: str) -> str:
        return user_id

    @cached(namespace="people")
    def elsewhere(x: int) -> int:
        return x

    await get_user("bob")
    manager = await get_redis_manager()
    assert await manager.scan_keys("users:get_user:*") == ["users:get_user:bob"]
    assert get_user.cache_key("bob") == "users:get_user:bob"
    key = elsewhere.cache_key(1)
    assert key.startswith(f"people:{__name__}:")
    assert await (await get_cache("people")).get(key.removeprefix("people:")) is None
    await asyncio.to_thread(elsewhere, 1)
    assert await (await get_cache("people")).get(key.removeprefix("people:")) == 1
    assert await cache.aget(key) == 1


def test_without_arguments_in_the_key_there_is_one_result() -> None:
    @cached(include_args=False)
    def first(x: int) -> int:
        return x

    assert [first(1), first(2), first(object())] == [1, 1, 1]  # type: ignore[arg-type]


def test_none_is_kept_only_on_request_and_exceptions_never() -> None:
    calls = Calls()

    @cached()
    def nothing() -> None:
        calls.append("nothing")

    @cached(cache_none=True)
    def kept_nothing() -> None:
        calls.append("kept")

    @cached()
    def failing() -> None:
        calls.append("failing")
        raise LookupError("as always")

    for _ in range(2):
        nothing()
        kept_nothing()
        with pytest.raises(LookupError, match="as always"):
            failing()
    assert sorted(calls) == ["failing", "failing", "kept", "nothing", "nothing"]
    # Nothing is left behind at the key either; add() would take a lease's place.
    assert not is_leased(cache, failing.cache_key())


def test_even_odd_exceptions_reach_the_caller_as_they_are() -> None:
    @cached()
    def stop() -> None:
        raise StopIteration("the value")

    with pytest.raises(StopIteration, match="the value"):
        stop()


def test_the_ttl_is_obeyed() -> None:
    @cached(ttl=60)
    def minute() -> int:
        return 1

    @cached(ttl=FOREVER)
    def forever() -> int:
        return 1

    @cached(ttl=0)
    def never() -> int:
        return 1

    for function in (minute, forever, never):
        assert function() == 1
    assert cache.ttl(minute.cache_key()) == 60  # type: ignore[attr-defined]
    assert cache.ttl(forever.cache_key()) is None  # type: ignore[attr-defined]
    assert not cache.has_key(never.cache_key())
    with pytest.raises(TypeError, match="parentheses"):
        cached(minute)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cached(ttl="300")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="namespace"):
        cached(namespace="a:b")


def test_a_result_that_cannot_be_stored_is_returned_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @cached(key_prefix="odd")
    def odd(x: int) -> Any:
        return [x, object()]

    with caplog.at_level(logging.WARNING, "cache_layer"):
        assert [odd(1)[0], odd(1)[0], odd(2)[0]] == [1, 1, 2]
    (line,) = [r.getMessage() for r in caplog.records if "odd" in r.getMessage()]
    assert "cannot be stored" in line
    assert "value[1]" in line


def test_an_argument_without_a_stable_form_is_not_kept_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = Calls()

    @cached(key_prefix="odd")
    def shaky(thing: Any) -> int:
        calls.append(thing)
        return len(calls)

    with caplog.at_level(logging.WARNING, "cache_layer"):
        assert [shaky(object()), shaky(object())] == [1, 2]
    (line,) = [r.getMessage() for r in caplog.records if "shaky" in r.getMessage()]
    assert "builtins.object" in line
    with pytest.raises(UnstableArgumentError):
        shaky.cache_key(object())
    assert shaky.invalidate(object()) is False


def test_a_wrong_call_raises_what_the_function_raises() -> None:
    @cached()
    def one(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"one\(\) missing 1 required positional argument"):
        one()  # type: ignore[call-arg]


@cached(key_prefix="module")
def documented(x: int, *, y: str = "a") -> str:
    """Say it."""
    return y * x


@cached(key_prefix="module")
async def documented_too(x: int) -> int:
    return x


def test_it_looks_like_the_function() -> None:
    assert documented.__doc__ == "Say it."
    assert documented.__name__ == "documented"
    assert str(inspect.signature(documented)) == "(x: 'int', *, y: 'str' = 'a') -> 'str'"
    assert inspect.iscoroutinefunction(documented_too)
    assert asyncio.iscoroutinefunction(documented_too)
    assert not inspect.iscoroutinefunction(documented)
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert copy.deepcopy(documented) is documented


class Repository:
    def __init__(self, name: str) -> None:
        self.name = name

    @cached(key_prefix="repo")
    def plain(self, x: int) -> int:
        return x

    @cached(key_prefix="repo")
    @classmethod
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @cached(key_prefix="repo")
    @staticmethod
    def of_nobody(x: int) -> float:
        return time.monotonic()

    @classmethod
    @cached(key_prefix="repo")
    def inner_of_class(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @staticmethod
    @cached(key_prefix="repo")
    async def inner_of_nobody(x: int) -> float:
        return time.monotonic()


class Special(Repository):
    pass


def test_class_and_static_methods_in_either_order() -> None:
    assert Repository.of_class(1) == Repository("x").of_class(1) == "Repository 1"
    assert Special.of_class(1) == "Special 1"
    assert Repository.of_class.invalidate(1) is True
    assert Repository.of_class.invalidate(1) is False
    assert Repository.inner_of_class(1) == "Repository 1"
    assert Special.inner_of_class(1) == "Special 1"
    assert Repository.of_nobody(1) == Repository("x").of_nobody(1)
    assert Repository.of_nobody.refresh(1) == Repository.of_nobody(1)
    awaited = async_to_sync(Repository.inner_of_nobody)
    assert awaited(1) == awaited(1)


def test_methods_of_objects_without_a_stable_form_run_uncached() -> None:
    repository = Repository("x")
    assert repository.plain(3) == 3
    assert repository.plain.invalidate(3) is False
    assert str(inspect.signature(repository.plain)) == "(x: 'int') -> 'int'"


@pytest.mark.django_db
def test_methods_of_model_instances_are_kept_by_primary_key() -> None:
    user_model = get_user_model()
    calls = Calls()

    @cached(key_prefix="user")
    def greeting(self: Any, word: str) -> str:
        calls.append(self.pk)
        return f"{word} {self.get_username()}"

    user_model.greeting = greeting  # type: ignore[attr-defined]
    try:
        one = user_model.objects.create_user(username="one")
        two = user_model.objects.create_user(username="two")
        assert one.greeting("hi") == "hi one"  # type: ignore[attr-defined]
        assert two.greeting("hi") == "hi two"  # type: ignore[attr-defined]
        again = user_model.objects.get(pk=one.pk)
        assert again.greeting("hi") == "hi one"  # type: ignore[attr-defined]
        assert calls == [one.pk, two.pk]
        assert again.greeting.invalidate("hi") is True  # type: ignore[attr-defined]
        assert one.greeting.refresh("hi") == "hi one"  # type: ignore[attr-defined]
        assert calls == [one.pk, two.pk, one.pk]
    finally:
        del user_model.greeting  # type: ignore[attr-defined]


def test_only_functions_are_decorated() -> None:
    with pytest.raises(TypeError, match="generator"):

        @cache_invalidate("numbers")
        def numbers() -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match="functions and methods"):
        cached()(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="parentheses"):
        cache_invalidate(test_only_functions_are_decorated)  # type: ignore[arg-type]


def test_functions_not_written_in_python_and_wrapped_ones() -> None:
    @functools.wraps(math.factorial)
    @functools.lru_cache
    def wrapped(x: int) -> float:
        return time.monotonic()

    assert cached()(math.factorial)(5) == 120
    assert cached()(math.factorial).__name__ == "factorial"
    first = cached(key_prefix="wrapped")(wrapped)
    assert first(1) == first(1)


async def test_functions_that_are_marked_as_awaited() -> None:
    @markcoroutinefunction
    def number(x: int) -> Any:
        async def answer() -> float:
            return time.monotonic()

        return answer()

    kept = cached()(number)
    assert await kept(1) == await kept(1)


def test_a_lambda_needs_a_prefix() -> None:
    double, square = (
        cached(key_prefix=name)(function)
        for name, function in {"double": lambda x: x + x, "square": lambda x: x * x}.items()
    )
    assert (double(3), square(3)) == (6, 9)
    with pytest.raises(ValueError, match="give this one a key_prefix"):
        cached()(lambda x: x)


async def test_a_call_can_be_forgotten_and_renewed() -> None:
    numbers = iter(range(100))

    @cached()
    async def number(x: str) -> int:
        return next(numbers)

    assert [await number("a"), await number("a"), await number("b")] == [0, 0, 1]
    assert await number.invalidate("a") is True
    assert await number.invalidate(x="a") is False
    assert [await number("a"), await number("b")] == [2, 1]
    assert await number.refresh("a") == 3
    assert await number("a") == 3


def test_metrics_count_calls_by_namespace() -> None:
    @cached(namespace="counted")
    def f(x: int) -> int:
        return x

    metrics.reset()
    for x in (1, 1, 2, 1):
        f(x)
    f.invalidate(1)
    found = metrics.snapshot()["metrics"]
    assert {name: found[f"counted:{name}"] for name in metrics.EVENTS} == {
        "hits": 2,
        "misses": 2,
        "sets": 2,
        "deletes": 1,
        "errors": 0,
    }


def test_an_awaited_method_binds_like_a_function() -> None:
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        @cached(key_prefix="bound")
        async def greet(self, word: str) -> str:
            return f"{word} {self.name}"

    one = Model("one")
    assert async_to_sync(one.greet)("hello") == "hello one"
    assert async_to_sync(Model.greet)(one, "hello") == "hello one"
