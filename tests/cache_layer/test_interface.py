from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache as django_cache

from cache_layer import metrics
from cache_layer.backends import ResilientCache
from cache_layer.exceptions import NotAnIntegerError, UnsupportedValueError
from cache_layer.interface import (
    FOREVER,
    ICache,
    NamespacedCache,
    SyncCache,
    get_cache,
    get_sync_cache,
)
from tests.cache_layer.caches import Leases, Stores


class Called:
    """An ``ICache`` whose methods are called without ``await``."""

    def __init__(self, cache: ICache[Any]) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return async_to_sync(getattr(self._cache, name))


class Contract(Stores):
    @pytest.fixture
    def users(self, backend: ResilientCache) -> Any:
        return self.face(backend, "users")

    def face(self, backend: ResilientCache, namespace: str) -> Any:
        raise AssertionError("the subclass says which face")

    def test_get_set_delete(self, users: Any, backend: ResilientCache) -> None:
        assert users.get("user:1") is None
        assert users.get("user:1", "default") == "default"
        assert users.set("user:1", {"name": "Ada"}) is True
        assert users.get("user:1") == {"name": "Ada"}
        assert backend.get("users:user:1") == {"name": "Ada"}
        backend.set("users:user:1", 2)
        assert users.get("user:1") == 2
        assert users.delete("user:1") is True
        assert users.delete("user:1") is False

    def test_exists_tells_none_from_missing(self, users: Any) -> None:
        users.set("k", None)
        assert users.exists("k") is True
        assert users.exists("l") is False
        assert users.get("k", "default") is None

    @pytest.mark.parametrize("ttl", [float("nan"), float("inf")])
    def test_a_ttl_is_finite(self, users: Any, ttl: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            users.set("k", 1, ttl=ttl)
        assert users.get("k") is None

    def test_ttl_tells_the_seconds_left(self, users: Any) -> None:
        users.set("default", 1)
        users.set("minute", 1, ttl=60)
        users.set("half", 1, ttl=0.5)
        users.set("forever", 1, ttl=FOREVER)
        assert users.ttl("default") == 300
        assert users.ttl("minute") == 60
        assert users.ttl("half") == 1
        assert users.ttl("forever") is FOREVER
        assert users.ttl("missing") is None

    @pytest.mark.parametrize("ttl", [0, -5])
    def test_a_ttl_that_is_over_stores_nothing_and_deletes(self, users: Any, ttl: int) -> None:
        users.set("k", 1)
        assert users.set("k", 2, ttl=ttl) is False
        assert users.exists("k") is False
        assert users.set_many({"k": 1}, ttl=ttl) is False
        assert users.exists("k") is False
        users.set("k", 1)
        assert users.expire("k", ttl) is True
        assert users.exists("k") is False

    @pytest.mark.parametrize("ttl", ["60", True, [1]])
    def test_a_ttl_is_a_number(self, users: Any, ttl: Any) -> None:
        with pytest.raises(TypeError, match="ttl"):
            users.set("k", 1, ttl=ttl)
        assert users.exists("k") is False

    def test_expire_changes_the_time_of_keys_that_are_there(self, users: Any) -> None:
        assert users.expire("k", 60) is False
        users.set("k", 1)
        assert users.expire("k", 1000) is True
        assert users.ttl("k") == 1000
        assert users.expire("k", FOREVER) is True
        assert users.ttl("k") is FOREVER

    def test_increment_adds_and_keeps_the_time(self, users: Any) -> None:
        assert users.increment("n", 5) == 5
        assert users.ttl("n") == 300
        users.expire("n", 1000)
        assert users.increment("n") == 6
        assert users.increment("n", -10) == -4
        assert users.increment("n", 2**64) == 2**64 - 4
        assert users.ttl("n") == 1000
        assert users.get("n") == 2**64 - 4
        assert users.increment("huge", 2**64) == 2**64
        assert users.increment("huge") == 2**64 + 1

    @pytest.mark.parametrize("value", ["5", 1.5, None, [1]])
    def test_increment_of_something_else_changes_nothing(self, users: Any, value: Any) -> None:
        users.set("k", value, ttl=1000)
        with pytest.raises(NotAnIntegerError, match="users:k"):
            users.increment("k")
        assert users.get("k", "gone") == value
        assert users.ttl("k") == 1000

    def test_increment_replaces_a_lease(self, users: Any, backend: ResilientCache) -> None:
        lease = Leases(backend).claim("n", "users")
        assert users.increment("n", 3) == 3
        assert not Leases(backend).fill("n", 99, lease, namespace="users")
        assert users.get("n") == 3

    def test_many_keys_are_stored_read_and_deleted(self, users: Any) -> None:
        assert users.set_many({"a": 1, "b": None}, ttl=100) is True
        assert users.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
        assert users.ttl("a") == 100
        assert users.delete_many(["a", "b", "c"]) == 2
        assert users.get_many(["a", "b"]) == {}

    def test_get_or_set(self, users: Any) -> None:
        calls = []

        def default() -> str:
            calls.append(1)
            return "value"

        assert users.get_or_set("k", default, ttl=100) == "value"
        assert users.get_or_set("k", default) == "value"
        assert len(calls) == 1
        assert users.ttl("k") == 100
        assert users.get_or_set("l", "plain") == "plain"

    def test_get_or_set_stores_nothing_that_was_invalidated_meanwhile(
        self, users: Any, backend: ResilientCache
    ) -> None:
        def default() -> str:
            backend.delete_pattern("users:*")
            return "old"

        assert users.get_or_set("k", default) == "old"
        assert users.exists("k") is False

    def test_namespaces_are_isolated(self, users: Any, backend: ResilientCache) -> None:
        others = [self.face(backend, name) for name in ("users2", "user", "Users", "")]
        for cache in (users, *others):
            cache.set("k", 1)
            cache.set("l", 1)
        assert users.clear() == 2
        assert users.get_many(["k", "l"]) == {}
        for cache in others:
            assert cache.get_many(["k", "l"]) == {"k": 1, "l": 1}

    @pytest.mark.parametrize("namespace", ["a:b", "a*", "a?", "[a]", "a\\", "^"])
    def test_a_namespace_must_not_reach_into_others(
        self, backend: ResilientCache, namespace: str
    ) -> None:
        with pytest.raises(ValueError, match="namespace"):
            self.face(backend, namespace)

    def test_an_unsupported_value_is_named(self, users: Any) -> None:
        with pytest.raises(UnsupportedValueError, match=r"users:k"):
            users.set("k", object())

    def test_it_is_counted_under_its_namespace(self, users: Any) -> None:
        before = metrics.snapshot()["metrics"]
        users.set("k", 1)
        users.get("k")
        users.get("missing")
        users.delete("k")
        after = metrics.snapshot()["metrics"]
        for event in ("sets", "hits", "misses", "deletes"):
            assert after[f"users:{event}"] - before.get(f"users:{event}", 0) == 1, event


class TestAwaited(Contract):
    def face(self, backend: ResilientCache, namespace: str) -> Any:
        return Called(NamespacedCache(backend, namespace))


class TestSynchronous(Contract):
    def face(self, backend: ResilientCache, namespace: str) -> Any:
        return SyncCache(backend, namespace)


async def test_get_cache_works_on_the_alias() -> None:
    cache = await get_cache("things")
    assert isinstance(cache, ICache)
    assert await cache.set("k", {"a": 1}, ttl=300)
    assert await django_cache.aget("things:k") == {"a": 1}
    assert get_sync_cache("things").get("k") == {"a": 1}
    await cache.clear()


async def test_a_coroutine_default_is_awaited() -> None:
    cache = await get_cache("things")

    async def default() -> int:
        return 5

    assert await cache.get_or_set("computed", default) == 5
    assert await cache.get("computed") == 5
    await cache.clear()


async def test_the_alias_is_a_setting(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "ours": {"BACKEND": "cache_layer.backends.ResilientCache", "KEY_PREFIX": "ours"},
    }
    other = await get_cache()
    assert await other.set("k", 2)
    settings.CACHE_LAYER_ALIAS = "ours"
    cache = await get_cache()
    assert await cache.set("k", 1)
    assert await other.get("k") == 2


def test_both_faces_have_the_same_methods() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(SyncCache) == public(ICache) == public(NamespacedCache)
