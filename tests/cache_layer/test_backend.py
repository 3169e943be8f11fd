from __future__ import annotations

import inspect
import time
import warnings
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import CacheKeyWarning
from django.core.cache.backends.base import BaseCache, default_key_func

from cache_layer.backends import Lease, ResilientCache
from cache_layer.exceptions import CacheLayerError, NotAnIntegerError, UnsupportedValueError
from tests.cache_layer.caches import Awaited, Leases, Left, Stores, make_cache


class Contract(Stores):
    """What every store promises. ``cache`` is the synchronous or the awaited face."""

    def test_values_come_back_equal_and_of_their_type(self, cache: Any) -> None:
        for value in (
            None,
            True,
            0,
            -7,
            2**70,
            -(2**80),
            1.5,
            "1",
            "",
            b"\x00L1",
            [1],
            (1, {2: 3}),
        ):
            cache.set("k", value)
            got = cache.get("k", "missing")
            assert (got, type(got)) == (value, type(value))

    def test_a_stored_none_exists(self, cache: Any) -> None:
        cache.set("k", None)
        assert cache.has_key("k")
        assert cache.get("k", "default") is None
        assert not cache.add("k", 1)
        assert not cache.has_key("other")

    def test_timeouts_decide_how_long_a_value_lives(self, cache: Any) -> None:
        left = Left()
        cache.set("default", 1)
        cache.set("minute", 1, 60)
        cache.set("forever", 1, None)
        assert cache.ttl("default") in left.of(300)
        assert cache.ttl("minute") in left.of(60)
        assert cache.ttl("forever") is None
        assert cache.ttl("missing") == 0

    @pytest.mark.parametrize("timeout", [0, -1, -0.5])
    def test_a_timeout_that_is_over_deletes(self, cache: Any, timeout: float) -> None:
        cache.set("k", 1)
        cache.set("k", 2, timeout)
        assert not cache.has_key("k")
        assert cache.add("k", 2, timeout)
        assert not cache.has_key("k")
        cache.set_many({"k": 1, "l": 2})
        assert cache.set_many({"k": 3, "l": 3}, timeout) == []
        assert cache.get_many(["k", "l"]) == {}
        cache.set("k", 1)
        assert cache.touch("k", timeout)
        assert not cache.touch("k", timeout)

    def test_touch_changes_the_timeout_only(self, cache: Any) -> None:
        left = Left()
        cache.set("k", [1], 10)
        assert cache.touch("k", 1000)
        assert cache.ttl("k") in left.of(1000)
        assert cache.expire("k", None)
        assert cache.ttl("k") is None
        assert cache.get("k") == [1]
        assert not cache.touch("missing")

    def test_delete_tells_whether_there_was_something(self, cache: Any) -> None:
        cache.set("k", 1)
        assert cache.delete("k") is True
        assert cache.delete("k") is False

    def test_many_keys_are_stored_read_and_deleted(self, cache: Any) -> None:
        values = {f"k{number}": number for number in range(1200)}
        assert cache.set_many(values) == []
        assert cache.get_many([*values, "missing"]) == values
        cache.delete_many(list(values)[:-1])
        assert cache.get_many(values) == {"k1199": 1199}
        assert cache.get_many([]) == {}
        assert cache.set_many({}) == []
        assert cache.delete_many([]) is None

    def test_incr_beyond_64_bits_and_back(self, cache: Any) -> None:
        left = Left()
        cache.set("n", 2**63 - 2, 1000)
        assert [cache.incr("n") for _ in range(3)] == [2**63 - 1, 2**63, 2**63 + 1]
        assert cache.decr("n", 2**70) == 2**63 + 1 - 2**70
        assert cache.get("n") == 2**63 + 1 - 2**70
        assert cache.incr("n", 2**70 - 2**63) == 1
        assert cache.incr("n") == 2
        assert cache.ttl("n") in left.of(1000)

    @pytest.mark.parametrize("value", ["5", 1.5, None, True, [1]])
    def test_incr_refuses_what_is_no_integer(self, cache: Any, value: Any) -> None:
        cache.set("k", value)
        with pytest.raises(NotAnIntegerError, match="k"):
            cache.incr("k")
        assert cache.get("k", "gone") == value

    @pytest.mark.parametrize("amount", [True, None, "2"])
    def test_incr_adds_numbers_alone(self, cache: Any, amount: Any) -> None:
        cache.set("n", 5)
        with pytest.raises(TypeError, match="A number can be added"):
            cache.incr("n", amount)
        assert cache.get("n") == 5

    def test_incr_of_a_missing_key(self, cache: Any) -> None:
        with pytest.raises(ValueError, match="missing"):
            cache.incr("missing")

    def test_incr_version_moves_value_and_expiry(self, cache: Any) -> None:
        left = Left()
        cache.set("k", "v", 1000)
        assert cache.incr_version("k") == 2
        assert cache.get("k") is None
        assert cache.get("k", version=2) == "v"
        assert cache.ttl("k", version=2) in left.of(1000)
        with pytest.raises(ValueError, match="missing"):
            cache.incr_version("missing")

    def test_keys_hold_any_text(self, cache: Any) -> None:
        for key in ("ключ", "键 with space", "\ud800", "\x00", "k" * 400, "a:b:c", "*"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheKeyWarning)
                cache.set(key, key)
                assert cache.get(key) == key
                assert cache.get_many([key]) == {key: key}
                assert cache.keys() == [key]
                assert cache.delete(key)

    @pytest.mark.parametrize("key", ["with space", "a\nline", "\x00", "\x7f"], ids=repr)
    def test_keys_are_validated(self, cache: Any, key: str) -> None:
        with pytest.warns(CacheKeyWarning):
            cache.get(key)
        with pytest.warns(CacheKeyWarning):
            cache.get_many(["without", key])

    def test_patterns_find_keys_as_redis_reads_them(self, cache: Any) -> None:
        for key in ("users:1", "users:2", "users:12", "users2:1", "[x]", "a*b", "aXb"):
            cache.set(key, key)
        assert sorted(cache.keys("users:*")) == ["users:1", "users:12", "users:2"]
        assert sorted(cache.keys("users:?")) == ["users:1", "users:2"]
        assert sorted(cache.keys("users[^:]:[0-3]")) == ["users2:1"]
        assert cache.keys(r"\[x\]") == ["[x]"]
        assert cache.keys(r"a\*b") == ["a*b"]
        assert cache.delete_pattern("users:*") == 3
        assert cache.delete_pattern("users:*") == 0
        assert sorted(cache.keys()) == ["[x]", "a*b", "aXb", "users2:1"]

    def test_deleting_thousands_by_pattern(self, cache: Any) -> None:
        cache.set_many({f"t:{number}": number for number in range(5000)})
        cache.set("kept", 1)
        assert cache.delete_pattern("t:*") == 5000
        assert cache.keys() == ["kept"]

    def test_clear_takes_all_versions_and_nobody_elses_keys(
        self, cache: Any, backend: ResilientCache
    ) -> None:
        neighbours = [
            make_cache(self.neighbourhood(backend), KEY_PREFIX=prefix)
            for prefix in (f"{backend.key_prefix}:more", f"{backend.key_prefix}2", "*", "")
        ]
        cache.set("k", 1)
        cache.set("k", 1, version=7)
        for neighbour in neighbours:
            neighbour.set("k", "theirs")
        cache.clear()
        assert not cache.has_key("k")
        assert not cache.has_key("k", version=7)
        for neighbour in neighbours:
            assert neighbour.get("k") == "theirs"
            neighbour.clear()
            assert neighbour.get("k") is None

    def test_an_unsupported_value_is_named(self, cache: Any) -> None:
        cache.set("k", 1)
        for call in (cache.set, cache.add):
            with pytest.raises(UnsupportedValueError, match=r"(?s)'.*:1:k'.*object"):
                call("k", {"a": [object()]})
        with pytest.raises(TypeError):
            cache.set_many({"k": 2, "l": object()})
        assert cache.get("k") == 1

    def test_get_or_set(self, cache: Any) -> None:
        assert cache.get_or_set("k", lambda: 1) == 1
        assert cache.get_or_set("k", lambda: 2) == 1
        assert cache.get_or_set("none", None) is None
        assert cache.has_key("none")
        assert cache.get_or_set("over", 1, 0) == 1
        assert not cache.has_key("over")

    def test_get_or_set_keeps_a_value_for_its_timeout_no_longer_and_no_shorter(
        self, cache: Any
    ) -> None:
        began = time.monotonic()
        cache.get_or_set("k", 1, 1000)
        left = cache.pttl("k")
        passed = (time.monotonic() - began) * 1000
        # Redis counts whole milliseconds.
        assert 1_000_000 - passed - 2 <= left <= 1_000_000

    def test_get_or_set_that_fails_leaves_nothing(
        self, cache: Any, backend: ResilientCache
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            cache.get_or_set("k", lambda: 1 / 0)
        # A key of its own: the second failure would clean up after the first.
        with pytest.raises(UnsupportedValueError):
            cache.get_or_set("l", object())
        assert Leases(backend).claim("k").owner
        assert Leases(backend).claim("l").owner


class LeaseContract(Stores):
    """A value computed before an invalidation is not stored after it."""

    @pytest.fixture
    def leases(self, backend: ResilientCache, cache: Any) -> Leases:
        return Leases(backend, cache.run)

    def test_one_owner_and_one_token(self, leases: Leases) -> None:
        first, second = leases.claim("k"), leases.claim("k")
        assert (first.owner, second.owner) == (True, False)
        assert first.token == second.token
        assert leases.fill("k", "v", second)
        assert leases.claim("k") == "v"
        assert not leases.fill("k", "w", first)

    def test_a_lease_is_a_missing_key_to_everyone_else(self, cache: Any, leases: Leases) -> None:
        leases.claim("k")
        assert cache.get("k", "default") == "default"
        assert cache.get_many(["k"]) == {}
        assert not cache.has_key("k")
        assert cache.ttl("k") == 0
        assert not cache.touch("k")
        assert cache.keys() == []
        with pytest.raises(ValueError, match="not found"):
            cache.incr("k")
        with pytest.raises(ValueError, match="not found"):
            cache.incr_version("k")
        assert cache.add("k", 1)
        assert cache.get("k") == 1

    @pytest.mark.parametrize(
        "invalidate",
        [
            lambda cache: cache.delete("k"),
            lambda cache: cache.delete_many(["k"]),
            lambda cache: cache.delete_pattern("k*"),
            lambda cache: cache.clear(),
            lambda cache: cache.set("k", "new"),
            lambda cache: cache.set("k", "new", 0),
            lambda cache: cache.add("k", "new"),
        ],
        ids=["delete", "delete_many", "delete_pattern", "clear", "set", "set_expired", "add"],
    )
    def test_whatever_changes_the_key_ends_the_lease(
        self, cache: Any, leases: Leases, invalidate: Any
    ) -> None:
        lease = leases.claim("k")
        invalidate(cache)
        expected = cache.get("k")
        assert not leases.fill("k", "old", lease)
        assert cache.get("k") == expected
        # The next reader gets a lease of its own, which the old one cannot use.
        cache.delete("k")
        assert leases.claim("k").token != lease.token
        assert not leases.fill("k", "old", lease)

    def test_deleting_a_lease_deletes_no_value(self, cache: Any, leases: Leases) -> None:
        leases.claim("k")
        assert cache.delete("k") is False
        leases.claim("k")
        assert cache.delete_pattern("*") == 0

    def test_a_released_lease_stores_nothing(self, cache: Any, leases: Leases) -> None:
        lease = leases.claim("k")
        assert leases.release("k", lease)
        assert not leases.release("k", lease)
        assert not leases.fill("k", 1, lease)
        cache.set("k", 1)
        assert not leases.release("k", lease)
        assert cache.get("k") == 1

    def test_a_namespace_is_put_before_the_key(self, cache: Any, leases: Leases) -> None:
        left = Left()
        lease = leases.claim("k", namespace="users")
        assert isinstance(lease, Lease)
        assert leases.fill("k", 1, lease, 50, namespace="users")
        assert cache.get("users:k") == 1
        assert cache.ttl("users:k") in left.of(50)

    def test_filling_with_a_timeout_that_is_over_stores_nothing(
        self, cache: Any, leases: Leases
    ) -> None:
        lease = leases.claim("k")
        leases.fill("k", 1, lease, 0)
        assert not cache.has_key("k")
        assert leases.claim("k").owner


class Synchronous:
    @pytest.fixture
    def cache(self, backend: ResilientCache) -> ResilientCache:
        return backend


class Asynchronous:
    @pytest.fixture
    def cache(self, backend: ResilientCache) -> Awaited:
        return Awaited(backend)


class TestSynchronous(Synchronous, Contract):
    pass


class TestAwaited(Asynchronous, Contract):
    pass


class TestLeases(Synchronous, LeaseContract):
    pass


class TestLeasesAwaited(Asynchronous, LeaseContract):
    pass


class TestOneStore(Stores):
    def test_both_worlds_see_each_others_values(self, backend: ResilientCache) -> None:
        awaited = Awaited(backend)
        awaited.set("k", {"a": 1})
        assert backend.get("k") == {"a": 1}
        backend.set("k", 5)
        assert awaited.incr("k") == 6
        lease = Leases(backend).claim("l")
        assert Leases(backend, awaited.run).fill("l", 1, lease)

    def test_a_coroutine_default_is_awaited(self, backend: ResilientCache) -> None:
        async def default() -> int:
            return 3

        assert async_to_sync(backend.aget_or_set)("k", default) == 3
        assert backend.get("k") == 3

    def test_two_instances_share_everything(self, backend: ResilientCache) -> None:
        other = make_cache(backend._location, KEY_PREFIX=backend.key_prefix)
        backend.set("k", 1)
        assert other.get("k") == 1
        assert other.store is backend.store


def test_every_method_has_an_awaited_twin_with_its_parameters() -> None:
    def members(prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix): inspect.signature(method)
            for name, method in inspect.getmembers(ResilientCache, inspect.isfunction)
            if prefix + name.removeprefix(prefix) == name and not name.startswith("_")
        }

    twins = {
        name: signature
        for name, signature in members("a").items()
        if inspect.iscoroutinefunction(getattr(ResilientCache, f"a{name}"))
    }
    assert {"get", "set_many", "get_or_set", "delete_pattern", "incr_version"} <= set(twins)
    for name, signature in twins.items():
        original = members("")[name]
        # redis-py's clients and pipelines that may be given are synchronous.
        expected = [each for each in original.parameters if each != "client"]
        assert list(signature.parameters) == expected, name
        # Django's own loops or takes a thread.
        inherited = getattr(BaseCache, f"a{name}", None)
        assert getattr(ResilientCache, f"a{name}") is not inherited, name


def test_a_key_function_that_hides_the_key_is_refused_where_keys_are_listed() -> None:
    def digest(key: str, prefix: str, version: int) -> str:
        return f"{hash((key, prefix, version))}"

    cache = make_cache(KEY_FUNCTION=digest)
    cache.set("k", 1)
    assert cache.get("k") == 1
    for call in (cache.clear, cache.keys, lambda: cache.delete_pattern("*")):
        with pytest.raises(CacheLayerError, match="KEY_FUNCTION"):
            call()
    cache.delete("k")


def test_a_key_function_around_the_key() -> None:
    cache = make_cache(KEY_FUNCTION=lambda key, prefix, version: f"{version}<{prefix}>{key}!")
    cache.set("k", 1)
    cache.set("k", 1, version=2)
    assert cache.keys() == ["k"]
    cache.clear()
    assert not cache.has_key("k", version=2)


def test_memory_is_bounded_and_drops_what_was_unused_longest() -> None:
    cache = make_cache(OPTIONS={"MAX_ENTRIES": 3})
    cache.clear()
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    cache.set("d", "d")
    assert sorted(cache.keys()) == ["a", "c", "d"]
    cache.clear()


def test_memory_is_bounded_by_the_setting(settings: Any) -> None:
    settings.CACHE_LAYER_MEMORY_MAX_ENTRIES = 2
    cache = make_cache(OPTIONS={"MADE_FOR": "this test"})
    for key in "abc":
        cache.set(key, key)
    assert sorted(cache.keys()) == ["b", "c"]


def test_what_a_caller_changes_is_not_changed_in_memory() -> None:
    cache = make_cache()
    value = {"a": [1]}
    cache.set("k", value)
    value["a"].append(2)
    cache.get("k")["a"].append(3)
    assert cache.get("k") == {"a": [1]}


def test_what_makes_keys_may_be_changed_later() -> None:
    cache = make_cache()
    cache.set("k", 1)
    before = cache.make_key("k")
    cache.key_func = lambda key, prefix, version: f"{key}@{prefix}"
    assert cache.get("k") is None
    cache.set("k", 2)
    cache.key_func = default_key_func
    assert cache.get("k") == 1
    cache.version = 7
    assert cache.get("k") is None
    cache.version = 1
    assert cache.make_key("k") == before
    assert cache.get("k") == 1


def test_a_class_may_make_its_keys_itself() -> None:
    class Tenants(ResilientCache):
        tenant = "a"

        def make_key(self, key: Any, version: int | None = None) -> str:
            return super().make_key(f"{self.tenant}-{key}", version)

    cache = Tenants("", {"KEY_PREFIX": "tenants"})
    cache.set("k", "of a")
    cache.tenant = "b"
    assert cache.get("k") is None
