from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import logging
import math
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import transaction

from cache_layer import FOREVER, cache_invalidate, cached, get_cache, get_redis_manager, metrics
from cache_layer.exceptions import UnstableArgumentError
from tests.cache_layer.caches import is_leased

pytestmark = pytest.mark.usefixtures("store")


class Calls(list[Any]):
    """Counts calls from threads and tasks."""


# --- what is kept, under which key ---------------------------------------------------------------


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


# --- looking like the function -------------------------------------------------------------------


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

        @cached()
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


# --- invalidate, refresh -------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("pattern", "survives"),
    [
        ("users:get:*", False),
        ("users:get:{user_id}", False),
        ("users:get:[0-8]", False),
        ("users:get:?", False),
        ("users:get:7", False),
        ("users:get:8", True),
        ("users:other:*", True),
        ("", False),
    ],
)
def test_patterns_after_the_call(pattern: str, survives: bool) -> None:
    numbers = iter(range(100))

    @cached(key_prefix="users", namespace="ns")
    def get(user_id: int) -> int:
        return next(numbers)

    @cached(key_prefix="users", namespace="ns2")
    def get_elsewhere(user_id: int) -> int:
        return next(numbers)

    @cache_invalidate(pattern, namespace="ns")
    def update(user_id: int, fail: bool = False) -> str:
        if fail:
            raise LookupError
        return "done"

    @cache_invalidate(pattern, namespace="ns")
    async def aupdate(user_id: int) -> str:
        return "done"

    for call in (update, async_to_sync(aupdate)):
        before = get(7), get_elsewhere(7)
        with pytest.raises(LookupError):
            update(7, fail=True)
        assert get(7) == before[0]
        assert call(7) == "done"
        assert (get(7) == before[0]) is survives
        assert get_elsewhere(7) == before[1]


@pytest.mark.parametrize("value", ["42", 42, "a*b", "x:y", "[a]", "käse", uuid.uuid4(), None, "*"])
def test_placeholders_match_what_the_argument_is_in_a_key_and_nothing_else(value: Any) -> None:
    numbers = iter(range(100))

    @cached(key_prefix="p")
    def get(x: Any, page: int = 1) -> int:
        return next(numbers)

    @cache_invalidate("p:get:{x}:*")
    def update(x: Any) -> None: ...

    get(value)
    get(value, page=2)
    other = get("axb"), get("another")
    update(value)
    assert not cache.has_key(get.cache_key(value))
    assert not cache.has_key(get.cache_key(value, 2))
    assert (get("axb"), get("another")) == other


def test_placeholders_match_among_many_long_arguments() -> None:
    @cached(key_prefix="p")
    def page(tenant: uuid.UUID, user: str, project: uuid.UUID, text: str, number: int = 1) -> float:
        return time.monotonic()

    @cache_invalidate("p:page:*:{user}:*")
    def update(user: str) -> None: ...

    arguments = (uuid.uuid4(), "someone.with.a.long.name@department.example.com", uuid.uuid4())
    before = page(*arguments, "x" * 60, 2)
    assert page(*arguments, "x" * 60, 2) == before
    update(arguments[1])
    assert page(*arguments, "x" * 60, 2) > before


@pytest.mark.parametrize("value", ["123", 123, "a*"])
def test_placeholders_also_match_keys_written_by_hand(value: Any) -> None:
    @cache_invalidate("user:{user_id}")
    def update(user_id: Any) -> None: ...

    cache.set_many({f"user:{value}": 1, "user:ab": 2})
    update(value)
    assert cache.get_many([f"user:{value}", "user:ab"]) == {"user:ab": 2}


@pytest.mark.django_db
def test_placeholders_see_the_arguments_as_they_were_before_the_call(
    django_capture_on_commit_callbacks: Any,
) -> None:
    user = get_user_model().objects.create_user(username="one")

    @cached(key_prefix="u")
    def profile(user: Any) -> str:
        return "kept"

    @cache_invalidate("u:profile:{user}")
    def remove(user: Any) -> None:
        user.delete()

    profile(user)
    key = profile.cache_key(user)
    with django_capture_on_commit_callbacks(execute=True):
        remove(user)
    assert not cache.has_key(key)


def test_an_argument_without_a_stable_form_invalidates_more_rather_than_less() -> None:
    @cached(key_prefix="w")
    def get(x: int) -> int:
        return x

    @cache_invalidate("w:get:{x}")
    def update(x: Any) -> None: ...

    get(1)
    update(object())
    assert not cache.has_key(get.cache_key(1))


def test_senseless_patterns_are_refused_at_decoration() -> None:
    def update(user_id: int) -> None: ...

    with pytest.raises(ValueError, match="would delete everything"):
        cache_invalidate()(update)
    with pytest.raises(ValueError, match=r"\{user\}, which is not an argument"):
        cache_invalidate("users:{user}")(update)
    for odd in ("users:{user_id!r}", "users:{}", "users:{user_id:>3}", "users:{"):
        with pytest.raises(ValueError, match="pattern"):
            cache_invalidate(odd)(update)
    with pytest.raises(ValueError, match="namespace"):
        cache_invalidate("*", namespace="a*")(update)


# --- transactions --------------------------------------------------------------------------------


@cached(key_prefix="tx")
def price(x: int) -> float:
    return time.monotonic()


@cache_invalidate("tx:price:*")
def change_price() -> None: ...


@cache_invalidate("tx:price:*")
async def achange_price() -> None: ...


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [change_price, async_to_sync(achange_price)])
def test_invalidation_waits_for_the_commit(change: Callable[[], None]) -> None:
    before = price(1)
    with transaction.atomic():
        with transaction.atomic():
            change()
        assert price(1) == before
    assert price(1) != before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [change_price, async_to_sync(achange_price)])
def test_invalidation_is_dropped_on_rollback(change: Callable[[], None]) -> None:
    before = price(1)
    with transaction.atomic():
        change()
        transaction.set_rollback(True)
    assert price(1) == before


@pytest.mark.django_db(transaction=True)
def test_a_value_read_before_the_commit_does_not_outlive_it() -> None:
    price(1)
    with transaction.atomic():
        assert price.invalidate(1) is True
        stale = price(1)
    assert price(1) != stale


# --- together ------------------------------------------------------------------------------------


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
