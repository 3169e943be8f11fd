"""Results of decorated functions in the near cache."""

from __future__ import annotations

import gc
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import override_settings

import cache_layer
from cache_layer import cached, get_sync_cache, invalidate_tags
from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Awaited, wait_for
from tests.cache_layer.near.helpers import (
    asked,
    default_alias,
    heard,
    listening,
    near_of,
    other_process,
)


def test_a_key_function_of_the_projects_own_keeps_tenants_apart(
    face: Any, cache: ResilientCache
) -> None:
    tenant = "a"
    params = {
        **cache._params,
        "KEY_FUNCTION": lambda key, prefix, v: f"{tenant}:{prefix}:{v}:{key}",
    }
    several = ResilientCache(cache._location, params)
    awaited = isinstance(face, Awaited)
    face = Awaited(several) if awaited else several

    @cached(key_prefix="p")
    def whose() -> str:
        return tenant

    @cached(key_prefix="q")
    async def whose_awaited() -> str:
        return tenant

    def call() -> str:
        return async_to_sync(whose_awaited)() if awaited else whose()

    with override_settings(
        CACHES={
            "default": {
                "BACKEND": "cache_layer.backends.ResilientCache",
                "LOCATION": cache._location,
                **params,
            }
        }
    ):
        for tenant in "ab":
            face.set("k", tenant)
            call()
        for tenant in "abab":
            for _ in range(3):
                assert face.get("k") == tenant
                assert call() == tenant


def test_results_of_functions_are_kept_until_invalidated(
    store: ResilientCache, client: redis.Redis
) -> None:
    calls: list[Any] = []

    @cached(tags=["user:{user}"])
    def get_user(user: Any, pending: Any = None) -> Any:
        calls.append(user)
        return len(calls)

    @cached()
    async def aget_user(user: Any) -> Any:
        calls.append(user)
        return [len(calls)]

    for user in (1, "1", True, b"1", None):
        assert get_user(user) == get_user(user) == get_user(user=user) == len(calls)
        assert get_user(user, 1) != get_user(user, True)
    assert len(calls) == 15
    heard(store, client)
    get_user(1)
    before = asked(client, "mget"), asked(client)
    found = [get_user(1) for _ in range(10)]
    assert found == [1] * 10
    assert (asked(client, "mget"), asked(client)) == before
    # Each of the ways to invalidate, in this process and in another.
    other = other_process(store)
    for invalidate in (
        lambda: get_user.invalidate(1),
        get_user.invalidate_all,
        lambda: other.delete(get_user.cache_key(1)),
        lambda: other.delete_pattern("*@tag:user:1"),
        lambda: other.delete_pattern("*@function:*"),
        client.flushdb,
    ):
        known = get_user(1)
        assert get_user(1) == get_user(1) == known
        invalidate()
        wait_for(lambda known=known: get_user(1) != known, "the result is computed anew")
        assert get_user(1) == get_user(1) == len(calls)
    changed = async_to_sync(aget_user)(1)
    changed.append("changed")
    assert async_to_sync(aget_user)(1) == async_to_sync(aget_user)(1) == [len(calls)]


@pytest.fixture(
    params=[{}, {"NEAR_CACHE": {"namespaces": [], "max_entries": 50}}], ids=["unset", "limits"]
)
def plain(url: str, request: pytest.FixtureRequest) -> Iterator[ResilientCache]:
    """An alias of which nothing is kept but what functions ask for."""
    with default_alias(url, **request.param) as cache:
        yield cache


FUNCTIONS: dict[str, Callable[..., Callable[[int], str]]] = {
    "sync": lambda **options: cached(key_prefix=uuid.uuid4().hex, **options)(
        lambda number: uuid.uuid4().hex
    ),
    "async": lambda **options: async_function(**options),
}


def async_function(**options: Any) -> Callable[[int], str]:
    @cached(key_prefix=uuid.uuid4().hex, **options)
    async def compute(number: int) -> str:
        return uuid.uuid4().hex

    function: Any = async_to_sync(compute)
    function.key = compute.cache_key
    function.invalidate = async_to_sync(compute.invalidate)
    function.invalidate_all = async_to_sync(compute.invalidate_all)
    function.refresh = async_to_sync(compute.refresh)
    return function  # type: ignore[no-any-return]


@pytest.fixture(params=FUNCTIONS.values(), ids=FUNCTIONS)
def make_function(request: pytest.FixtureRequest) -> Any:
    return request.param


def hits(client: redis.Redis, function: Callable[[int], str], times: int = 10) -> int:
    """How often Redis was asked for a result that it has."""
    before = asked(client, "mget")
    assert len({function(1) for _ in range(times)}) == 1
    return asked(client, "mget") - before


@pytest.mark.parametrize("namespace", ["", "users"])
def test_one_function_may_use_the_near_cache_alone(
    plain: ResilientCache, client: redis.Redis, make_function: Any, namespace: str
) -> None:
    near = make_function(near=True, namespace=namespace, tags=["all", "number:{number}"])
    other = make_function(namespace=namespace)
    assert "near" not in plain.store.describe()
    near(1)
    wait_for(lambda: near_of(plain).on, "the near cache is on")
    assert near_of(plain).options.max_entries in (50, 10_000)
    other(1)
    plain.set("k", 1)
    heard(plain, client)
    near(1)
    assert hits(client, near) == 0
    assert hits(client, other) == 10
    before = asked(client)
    assert [plain.get("k"), plain.get("k")] == [1, 1]
    assert asked(client) == before + 2
    assert plain.store.describe()["near"]["on"]
    # The key and its three tags.
    assert len(near_of(plain)) == 4
    foreign = other_process(plain)
    scope = f"{namespace}:" if namespace else ""
    key = getattr(near, "key", None) or near.cache_key
    for invalidate in (
        lambda: near.invalidate(1),
        near.invalidate_all,
        lambda: near.refresh(1),
        lambda: invalidate_tags("number:1", namespace=namespace),
        lambda: plain.delete(key(1)),
        lambda: foreign.delete(key(1)),
        lambda: foreign.delete(f"{scope}@tag:all"),
        lambda: get_sync_cache(namespace).clear(),
        client.flushdb,
    ):
        known = near(1)
        assert near(1) == known
        invalidate()
        wait_for(lambda known=known: near(1) != known, "the result is computed anew")


def test_one_function_may_leave_the_near_cache_out(
    store: ResilientCache, client: redis.Redis, make_function: Any
) -> None:
    far, near = make_function(near=False), make_function()
    far(1), near(1)
    heard(store, client)
    far(1), near(1)
    assert hits(client, far) == 10
    assert hits(client, near) == 0


def test_an_alias_may_refuse_the_near_cache(
    url: str, client: redis.Redis, make_function: Any
) -> None:
    with default_alias(url, NEAR_CACHE=False) as cache:
        function = make_function(near=True)
        function(1)
        assert hits(client, function) == 10
        assert cache.store.near is None


def test_arguments_of_any_type_are_told_apart(store: ResilientCache) -> None:
    @cached()
    def given(value: Any, more: Any = None) -> Any:
        return [value, more]

    for _ in range(3):
        assert given([1]) == [[1], None]
        assert given([1], more=[2]) == [[1], [2]]
        assert given(1, more=[2]) == [1, [2]]
        assert given(1, more=True)[1] is True
        assert given(1, more=1)[1] is not True
        assert given(True)[0] is True
        assert given(1)[0] is not True


def test_near_functions_work_without_redis(make_function: Any) -> None:
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "KEY_PREFIX": uuid.uuid4().hex}
    with override_settings(CACHES={"default": entry}):
        function = make_function(near=True)
        assert function(1) == function(1)
        function.invalidate(1)


def test_a_near_function_is_refreshed_when_stale(plain: ResilientCache) -> None:
    calls: list[int] = []

    @cached(ttl=0.3, stale_ttl=30, near=True)
    def compute(number: int) -> int:
        calls.append(number)
        return len(calls)

    compute(1)
    wait_for(lambda: near_of(plain).on, "the near cache is on")
    compute.refresh(1)
    known = len(calls)
    assert [compute(1), compute(1), compute(1)] == [known] * 3
    time.sleep(0.35)
    wait_for(lambda: compute(1) == known + 1, "it is renewed in the background")


def test_a_prefix_set_for_each_tenant_keeps_tenants_apart(
    store: ResilientCache, make_function: Any
) -> None:
    function = make_function()
    for name in ("key_prefix", "version"):
        kept = {}
        for tenant in (1, 2, 1, 2):
            # As middleware does that sets a prefix for each request.
            setattr(store, name, tenant)
            for _ in range(3):
                result = function(1)
                store.set("k", store.get("k", result))
                assert kept.setdefault(tenant, result) == result
                assert store.get("k") == kept[tenant]
        assert kept[1] != kept[2]


class ChosenLater(ResilientCache):
    """Asks for the prefix each time."""

    tenant = ""

    @property
    def key_prefix(self) -> str:
        return self.tenant

    @key_prefix.setter
    def key_prefix(self, value: str) -> None:
        pass


class ChosenAtFirst(ResilientCache):
    """Has the prefix of when it was made, as Django does for each thread."""

    tenant = ""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, {**params, "KEY_PREFIX": type(self).tenant})


@pytest.mark.parametrize("tenants", [ChosenLater, ChosenAtFirst])
def test_a_class_that_chooses_the_prefix_keeps_tenants_apart(
    tenants: Any, url: str, make_function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = make_function(near=True)
    entry = {
        "BACKEND": f"{__name__}.{tenants.__name__}",
        "LOCATION": url,
        "OPTIONS": {"NEAR_CACHE": True},
    }
    kept: dict[str, str] = {}

    def use() -> None:
        cache: Any = caches["default"]
        cache.set("k", tenants.tenant)
        for _ in range(3):
            assert function(1) == kept.setdefault(tenants.tenant, function(1))
            assert cache.get("k") == tenants.tenant
            assert cache.get_many(["k"]) == {"k": tenants.tenant}
        if tenants is ChosenAtFirst:
            listening(cache)

    with override_settings(CACHES={"default": entry}), ThreadPoolExecutor(1) as thread:
        for tenant in "aabab":
            monkeypatch.setattr(tenants, "tenant", tenant)
            # Of its own, as each request has them.
            if tenants is ChosenAtFirst:
                with ThreadPoolExecutor(1) as another:
                    another.submit(use).result()
            else:
                thread.submit(use).result()
        assert kept["a"] != kept["b"]
        caches["default"].store.close()  # type: ignore[attr-defined]


def test_near_is_true_false_or_none() -> None:
    with pytest.raises(TypeError, match="near is True, False or None, not 'yes'"):
        cached(near="yes")  # type: ignore[arg-type]


def test_large_arguments_are_not_remembered(store: ResilientCache) -> None:
    @cached()
    def compute(text: str) -> str:
        return uuid.uuid4().hex

    compute("a")
    tracemalloc.start()
    try:
        texts = [f"{number}{'a' * 1_000_000}" for number in range(20)]
        for text in texts:
            assert len({compute(text) for _ in range(4)}) == 1
        del texts, text
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [str, lambda text: [text]], ids=["constant", "changeable"])
@pytest.mark.parametrize("length", [10, 3000])
def test_the_bytes_taken_are_counted(
    store: ResilientCache, client: redis.Redis, make: Callable[[str], Any], length: int
) -> None:
    @cached()
    def compute(text: str) -> Any:
        return make("x" * length)

    texts = [f"user {number}" for number in range(500)]
    for text in texts:
        compute(text)
    heard(store, client)
    tracemalloc.start()
    try:
        for text in [*texts, *texts]:
            compute(text)
        gc.collect()
        # What other threads of the process take meanwhile is none of its business.
        ours = tracemalloc.Filter(True, f"{Path(cache_layer.__file__).parent}/*")
        snapshot = tracemalloc.take_snapshot().filter_traces([ours])
        taken = sum(trace.size for trace in snapshot.traces)
    finally:
        tracemalloc.stop()
    near = near_of(store)
    assert len(near) > len(texts)
    assert near.bytes / 1.4 < taken < near.bytes * 1.4


def test_a_result_is_refreshed_when_it_is_stale(store: ResilientCache) -> None:
    calls: list[int] = []

    @cached(ttl=0.3, stale_ttl=30)
    def compute(number: int) -> int:
        calls.append(number)
        return len(calls)

    assert [compute(1), compute(1), compute(1)] == [1, 1, 1]
    time.sleep(0.35)
    assert compute(1) == 1
    wait_for(lambda: compute(1) == 2, "it is renewed in the background")


def test_other_settings_do_not_find_the_same_arguments(store: ResilientCache) -> None:
    @cached()
    def compute(number: int) -> str:
        return uuid.uuid4().hex

    first = compute(1)
    assert compute(1) == compute(1) == first
    other = {**store._params, "BACKEND": "cache_layer.backends.ResilientCache"}
    other |= {"LOCATION": store._location, "KEY_PREFIX": uuid.uuid4().hex}
    with override_settings(CACHES={"default": other}):
        assert compute(1) != first
    assert compute(1) == first
