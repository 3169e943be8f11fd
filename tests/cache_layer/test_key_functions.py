"""Key functions of projects: what they change in a key is never taken for a missing key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from cache_layer.exceptions import CacheLayerError
from tests.cache_layer.caches import Awaited, make_cache

KeyFunction = Callable[[str, str, Any], str]
pytestmark = pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")


def quoted(key: str, prefix: str, version: Any) -> str:
    return f"{prefix}:{version}:{quote(key)}"


def lowered(key: str, prefix: str, version: Any) -> str:
    return f"{prefix}:{version}:{key.lower()}"


def shortened(key: str, prefix: str, version: Any) -> str:
    full = f"{prefix}:{version}:{key}"
    return full if len(full) < 200 else hashlib.sha256(full.encode()).hexdigest()


def shortened_behind_the_prefix(key: str, prefix: str, version: Any) -> str:
    if len(key) > 100:
        key = hashlib.sha256(key.encode()).hexdigest()
    return f"{prefix}:{version}:{key}"


def repeated(key: str, prefix: str, version: Any) -> str:
    return f"{key}:{prefix}:{version}:{key}"


def of_text_versions(key: str, prefix: str, version: Any) -> str:
    return prefix + ":" + version + ":" + key


def of_known_versions(key: str, prefix: str, version: Any) -> str:
    return f"{prefix}:{ {1: 'old', 2: 'new'}[version] }:{key}"


@pytest.fixture(params=["sync", "async"])
def faces(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def face(location: str = "", **params: Any) -> Any:
        cache = make_cache(location, **params)
        return cache if request.param == "sync" else Awaited(cache)

    return face


@pytest.mark.parametrize(
    ("key_function", "pattern"),
    [(quoted, "users:*"), (quoted, "a b*"), (lowered, "User*"), (repeated, "*")],
)
def test_a_pattern_that_a_key_function_would_change_is_refused(
    faces: Any, redis_url: str, key_function: KeyFunction, pattern: str
) -> None:
    for location in ("", redis_url):
        cache = faces(location, KEY_FUNCTION=key_function)
        cache.set("users:1", "Ada")
        for method in (cache.keys, cache.delete_pattern):
            with pytest.raises(CacheLayerError, match="KEY_FUNCTION"):
                method(pattern)
        assert cache.get("users:1") == "Ada"


def test_a_pattern_that_a_key_function_leaves_as_it_is_finds_its_keys(redis_url: str) -> None:
    cache = make_cache(redis_url, KEY_FUNCTION=quoted)
    cache.set("users/1", "Ada")
    cache.set("users/a b", "Grace")
    assert cache.delete_pattern("users/*") == 2


def test_a_key_function_that_hides_long_keys_is_not_cleared_in_silence(redis_url: str) -> None:
    for key_function in (shortened, repeated):
        cache = make_cache(redis_url, KEY_FUNCTION=key_function)
        cache.set("x" * 300, 1)
        with pytest.raises(CacheLayerError, match="KEY_FUNCTION"):
            cache.clear()


@pytest.mark.parametrize("key_function", [quoted, lowered, shortened_behind_the_prefix])
def test_keys_that_begin_and_end_alike_are_cleared(
    redis_url: str, key_function: KeyFunction
) -> None:
    cache = make_cache(redis_url, KEY_FUNCTION=key_function)
    other = make_cache(redis_url, KEY_FUNCTION=key_function)
    keys = ["k", "x" * 300, "A b:*?"]
    for each in (cache, other):
        each.set_many(dict.fromkeys(keys, 1))
    cache.set("k", 1, version=7)
    cache.clear()
    assert cache.get_many(keys) == {}
    assert not cache.has_key("k", version=7)
    assert sorted(other.get_many(keys)) == sorted(keys)


def test_a_key_function_may_want_versions_to_be_text(redis_url: str) -> None:
    cache = make_cache(redis_url, KEY_FUNCTION=of_text_versions, VERSION="v2")
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert cache.keys() == ["k"]
    cache.clear()
    assert not cache.has_key("k")


def test_a_key_function_may_know_certain_versions_only(redis_url: str) -> None:
    cache = make_cache(redis_url, KEY_FUNCTION=of_known_versions)
    cache.set("k", 1)
    cache.set("k", 2, version=2)
    assert (cache.get("k"), cache.get("k", version=2)) == (1, 2)
    assert cache.delete_pattern("k*") == 1
    with pytest.raises(CacheLayerError, match="KEY_FUNCTION"):
        cache.clear()
    with pytest.raises(KeyError):
        cache.get("k", version=3)
