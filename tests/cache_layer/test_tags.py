"""What a tag invalidates, for every way of reading."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import cache
from django.db import transaction

from cache_layer import (
    FOREVER,
    ainvalidate_tags,
    cache_invalidate,
    cached,
    get_cache,
    get_redis_manager,
    get_sync_cache,
    invalidate_tags,
    metrics,
)
from tests.cache_layer.caches import make_cache

pytestmark = pytest.mark.usefixtures("store")


class Counted:
    """Returns another number at each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_a_tag_forgets_the_results_that_have_it_and_no_other() -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["user:{user_id}", "all users"])
    def profile(user_id: Any, deep: bool = False) -> int:
        return count()

    @cached(key_prefix="t")
    def untagged(user_id: Any) -> int:
        return count()

    assert [profile(1), profile(1, deep=True), profile("2"), untagged(1)] == [1, 2, 3, 4]
    invalidate_tags("user:1")
    assert [profile(1), profile(1, deep=True), profile("2"), untagged(1)] == [5, 6, 3, 4]
    # Whatever the argument's type, people write it as it reads.
    invalidate_tags("user:2")
    assert profile("2") == 7
    invalidate_tags("all users", "no such tag")
    assert [profile(1), profile("2"), untagged(1)] == [8, 9, 4]


async def test_awaited_functions_have_tags_too() -> None:
    count = Counted()

    @cached(namespace="users", key_prefix="t", tags=["user:{user_id}"])
    async def profile(user_id: int) -> int:
        return count()

    assert [await profile(1), await profile(1), await profile(2)] == [1, 1, 2]
    await ainvalidate_tags("user:1", namespace="users")
    assert [await profile(1), await profile(2)] == [3, 2]
    await ainvalidate_tags("user:1")
    assert await profile(1) == 3, "another namespace"
    await (await get_cache("users")).invalidate_tags("user:1", "user:2")
    assert [await profile(1), await profile(2)] == [4, 5]
    await profile.invalidate_all()
    assert [await profile(1), await profile(2)] == [6, 7]


def test_everything_of_a_function_is_forgotten_at_once() -> None:
    count = Counted()

    class Shop:
        pk = 1

        @cached(key_prefix="t", include_args=False)
        def first(self) -> int:
            return count()

        @cached(key_prefix="t", include_args=False)
        def second(self) -> int:
            return count()

    shop = Shop()
    assert [shop.first(), shop.second()] == [1, 2]
    shop.first.invalidate_all()
    assert [shop.first(), shop.second()] == [3, 2]


def test_a_change_invalidates_by_tags() -> None:
    count = Counted()

    @cached(namespace="users", key_prefix="t", tags=["user:{user_id}"])
    def profile(user_id: int) -> int:
        return count()

    @cache_invalidate(namespace="users", tags=["user:{pk}"])
    def rename(pk: int) -> None:
        if pk < 0:
            raise LookupError

    cache.set("users:other", "kept")
    assert [profile(1), profile(2), profile(-1)] == [1, 2, 3]
    rename(1)
    with pytest.raises(LookupError):
        rename(-1)
    assert [profile(1), profile(2), profile(-1)] == [4, 2, 3]
    assert cache.get("users:other") == "kept", "only the tag was meant, not the namespace"

    @cache_invalidate("other", namespace="users", tags=["user:{pk}"])
    def both(pk: int) -> None: ...

    both(2)
    assert [profile(1), profile(2)] == [4, 5]
    assert cache.get("users:other") is None


@pytest.mark.django_db(transaction=True)
def test_tags_wait_for_the_commit_as_other_invalidations_do() -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["a"])
    def value() -> int:
        return count()

    @cache_invalidate(tags=["a"])
    def change() -> None: ...

    assert value() == 1
    with transaction.atomic():
        change()
        assert value() == 1
    assert value() == 2
    with transaction.atomic():
        change()
        transaction.set_rollback(True)
    assert value() == 3, "a rollback costs a miss"
    for invalidate in (lambda: invalidate_tags("a"), value.invalidate_all):
        before = count.calls
        with transaction.atomic():
            invalidate()
            assert value() == before + 1, "at once"
        assert value() == before + 2, "and again after the commit"


WAYS: dict[str, Callable[[str, Any], Any]] = {
    "get": lambda key, ns: cache.get(key),
    "aget": lambda key, ns: async_to_sync(cache.aget)(key),
    "get_many": lambda key, ns: cache.get_many([key, "other"]).get(key),
    "aget_many": lambda key, ns: async_to_sync(cache.aget_many)([key]).get(key),
    "has_key": lambda key, ns: cache.has_key(key) or None,
    "ttl": lambda key, ns: cache.ttl(key) or None,
    "keys": lambda key, ns: cache.keys(key) or None,
    "touch": lambda key, ns: cache.touch(key, 500) or None,
    "incr": lambda key, ns: _or_none(lambda: cache.incr(key)),
    "add": lambda key, ns: None if cache.add(key, 5) else True,
    "delete": lambda key, ns: cache.delete(key) or None,
    "delete_pattern": lambda key, ns: cache.delete_pattern("*") or None,
    "incr_version": lambda key, ns: _or_none(lambda: cache.incr_version(key)),
    "namespaced get": lambda key, ns: ns.get(key.partition(":")[2]),
    "namespaced exists": lambda key, ns: ns.exists(key.partition(":")[2]) or None,
    "namespaced clear": lambda key, ns: ns.clear() or None,
    "get_or_set": lambda key, ns: _set_or_none(cache.get_or_set(key, "set")),
}


def _or_none(call: Callable[[], int]) -> int | None:
    try:
        return call()
    except ValueError:
        return None


def _set_or_none(found: Any) -> Any:
    return None if found == "set" else found


@pytest.mark.parametrize("way", WAYS)
def test_every_other_way_of_reading_sees_the_value_and_its_end(way: str) -> None:
    @cached(namespace="n", key_prefix="t", tags=["a"], ttl=300)
    def value(number: int) -> int:
        return number

    read = WAYS[way]
    namespaced = get_sync_cache("n")
    key = value.cache_key(1)
    value(1)
    assert read(key, namespaced) is not None
    value(1)
    value(2)
    invalidate_tags("a", namespace="n")
    assert read(value.cache_key(2), namespaced) is None


def test_incrementing_a_result_keeps_its_tags() -> None:
    @cached(key_prefix="t", tags=["a"])
    def value() -> int:
        return 2**70

    value()
    assert cache.incr(value.cache_key(), 2) == 2**70 + 2
    assert value() == 2**70 + 2
    invalidate_tags("a")
    assert value() == 2**70


def test_a_result_made_to_live_longer_still_depends_on_its_tags() -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["a"], ttl=1)
    def value() -> int:
        return count()

    value()
    assert cache.touch(value.cache_key(), 1000)
    assert 900 < cache.ttl(value.cache_key()) <= 1000
    assert value() == 1
    invalidate_tags("a")
    assert value() == 2


def test_forever_is_for_ever_with_tags() -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["a"], ttl=FOREVER)
    def value() -> int:
        return count()

    value()
    assert cache.ttl(value.cache_key()) is None
    assert value() == 1
    invalidate_tags("a")
    assert value() == 2


async def test_tags_are_no_keys_of_anybody() -> None:
    @cached(namespace="n", key_prefix="t", tags=["a"])
    def value(number: int) -> int:
        return number

    for number in range(3):
        await sync_to_async(value)(number)
    manager = await get_redis_manager()
    assert sorted(await manager.scan_keys("n:*")) == sorted(value.cache_key(n) for n in range(3))
    assert await cache.aget("n:@tag:a") is None
    assert await (await get_cache("n")).clear() == 3, "exact, although tags are dropped too"


@pytest.mark.parametrize("how", ["tag", "function", "change"])
def test_a_value_begun_before_the_invalidation_is_not_served_after_it(how: str) -> None:
    """Neither from the cache nor by joining the computation."""
    begun, proceed = threading.Event(), threading.Event()
    count = Counted()

    @cached(key_prefix="t", tags=["a"])
    def value() -> int:
        number = count()
        if number == 1:
            begun.set()
            proceed.wait(30)
        return number

    @cache_invalidate(tags=["a"])
    def change() -> None: ...

    ways = {"tag": lambda: invalidate_tags("a"), "function": value.invalidate_all, "change": change}
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(value)
        assert begun.wait(30)
        ways[how]()
        late = pool.submit(value)
        assert late.result(30) == 2
        proceed.set()
        assert early.result(30) == 1
    assert value() == 2


def test_a_hit_counts_once_and_so_does_a_miss(store: str) -> None:
    namespace = f"counted-{store}".replace(" ", "-")

    @cached(namespace=namespace, key_prefix="t", tags=["a"])
    def value() -> int:
        return 1

    for _ in range(3):
        value()
    invalidate_tags("a", namespace=namespace)
    value()
    found = metrics.snapshot()["metrics"]
    assert (found[f"{namespace}:hits"], found[f"{namespace}:misses"]) == (2, 2)


def test_senseless_tags_are_refused_at_decoration() -> None:
    def function(user_id: int) -> None: ...

    with pytest.raises(ValueError, match="user_name}, which is not an argument"):
        cached(key_prefix="t", tags=["{user_name}"])(function)
    with pytest.raises(ValueError, match="all calls share one result"):
        cached(key_prefix="t", include_args=False, tags=["{user_id}"])(function)
    with pytest.raises(TypeError, match="a list of strings"):
        cached(key_prefix="t", tags="user")(function)
    with pytest.raises(ValueError, match="may not be empty"):
        cached(key_prefix="t", tags=[""])(function)
    with pytest.raises(ValueError, match="well formed"):
        cache_invalidate(tags=["{"])(function)
    with pytest.raises(TypeError, match="A tag is a string"):
        invalidate_tags(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colon"):
        invalidate_tags("a", namespace="a:b")


@pytest.mark.parametrize("tag", ["Ada Lovelace", "*", "x" * 1000, "ünïcode", "\ud800", "a:b/c"])
def test_a_tag_may_be_any_text(tag: str) -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["of {name}"])
    def value(name: str) -> int:
        return count()

    value(tag)
    value("other")
    invalidate_tags(f"of {tag}")
    assert [value(tag), value("other")] == [3, 2]


@pytest.mark.parametrize(
    "argument",
    ["", 1 << 20_000, "\ud800", "{", "@tag:", None],
    ids=["empty", "huge", "surrogate", "brace", "tag", "none"],
)
def test_any_argument_may_be_a_tag(argument: Any) -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["{argument}"])
    def value(argument: Any) -> int:
        return count()

    @cache_invalidate(tags=["{argument}"])
    def change(argument: Any) -> None:
        pass

    @cache_invalidate("t:value:{argument}")
    def change_by_pattern(argument: Any) -> None:
        pass

    assert [value(argument), value("other"), value(argument)] == [1, 2, 1]
    change(argument)
    assert [value(argument), value("other")] == [3, 2]
    change_by_pattern(argument)
    assert [value(argument), value("other")] == [4, 2]


def test_a_change_of_something_unsaved_forgets_its_fixed_tags(
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["list"])
    def value() -> int:
        return count()

    @cache_invalidate(tags=["list", "item:{item}"])
    def change(item: object) -> None: ...

    value()
    change(object())
    assert value() == 2


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_what_others_do_to_the_keys_is_never_more_than_a_miss(redis_url: str) -> None:
    count = Counted()

    @cached(key_prefix="t", tags=["a"])
    def value() -> int:
        return count()

    client = redis.Redis.from_url(redis_url)
    tag = cache.make_key("@tag:a").encode()
    key = cache.make_key(value.cache_key()).encode()
    spoilers: list[Callable[[], object]] = [
        lambda: client.delete(tag),
        lambda: client.set(tag, b""),
        lambda: client.set(tag, b"\x00L"),
        lambda: (client.delete(tag), client.lpush(tag, "x")),
        lambda: cache.set("@tag:a", "value"),
        lambda: client.flushdb(),
        lambda: client.set(key, b"\x00E"),
        lambda: client.set(key, b"\x00E" + b"\xff" * 100),
        lambda: client.set(key, (client.get(key) or b"")[:-1]),
        lambda: client.set(key, (client.get(key) or b"")[:60]),
        lambda: cache.set(value.cache_key(), "by hand"),
    ]
    for number, spoil in enumerate(spoilers, 1):
        assert value() == number
        assert value() == number, f"kept after {number}"
        spoil()
        cache.get(value.cache_key())
        cache.get_many([value.cache_key()])
        cache.has_key(value.cache_key())
        cache.ttl(value.cache_key())
    client.close()


def test_a_result_whose_tag_was_invalidated_is_missing_for_get_or_set() -> None:
    @cached(tags=["t"])
    def value() -> str:
        return "old"

    for get_or_set in (cache.get_or_set, async_to_sync(cache.aget_or_set)):
        cache.delete(value.cache_key())
        assert value() == "old"
        invalidate_tags("t")
        assert get_or_set(value.cache_key(), lambda: "new") == "new"


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_the_function_s_tag_outlives_its_results(redis_url: str) -> None:

    @cached(key_prefix="t", tags=["a"], ttl=10)
    def short() -> int:
        return 1

    @cached(key_prefix="t", tags=["a"], ttl=10_000)
    def long() -> int:
        return 1

    client = redis.Redis.from_url(redis_url)
    for call in (short, long, short):
        call()
    for name in ("@tag:a", "@function:t:long"):
        assert client.ttl(cache.make_key(name)) >= 10_000
    assert 10 <= client.ttl(cache.make_key("@function:t:short")) < 1000
    client.close()


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_a_key_function_that_hides_keys(redis_url: str) -> None:
    hidden = make_cache(redis_url, KEY_FUNCTION=lambda key, prefix, version: f"{hash(key)}")
    make = hidden.operations("n")
    assert make.key("@tag:a", None) == f"{hash('n:@tag:a')}"
