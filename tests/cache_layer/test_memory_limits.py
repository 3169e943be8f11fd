"""The memory side is bounded in bytes as well as in entries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cache_layer.caches import Awaited, make_cache

PAGE = "x" * 200_000


@pytest.fixture(params=["sync", "async"])
def wrap(request: pytest.FixtureRequest) -> Any:
    return (lambda cache: cache) if request.param == "sync" else Awaited


def test_large_pages_take_no_more_than_the_limit(settings: Any, wrap: Any) -> None:
    settings.CACHE_LAYER_MEMORY_MAX_BYTES = 1_000_000
    cache = make_cache()
    face = wrap(cache)
    for number in range(50):
        face.set(f"page{number}", PAGE)
        assert face.get(f"page{number}") == PAGE
        assert cache.store.memory.bytes <= 1_000_000
    # The latest ones are there, the oldest are gone.
    assert [face.get(f"page{number}") is None for number in (0, 45, 49)] == [True, True, False]
    face.set_many({f"page{number}": PAGE for number in range(50)})
    assert 0 < cache.store.memory.bytes <= 1_000_000


def test_a_page_beyond_the_limit_replaces_nothing_else(settings: Any, wrap: Any) -> None:
    settings.CACHE_LAYER_MEMORY_MAX_BYTES = 100_000
    face = wrap(make_cache())
    face.set("small", 1)
    face.set("large", "fits")
    face.set("large", PAGE)
    assert face.get("large") is None
    assert face.get("small") == 1


def test_bytes_are_counted_until_the_last_entry_is_gone(settings: Any, wrap: Any) -> None:
    cache = make_cache()
    # Other tests' caches share it.
    cache.store.memory.clear()
    face = wrap(cache)
    face.set("a", "x" * 1000)
    face.set("a", "y")
    face.incr_version("a")
    face.set("n", 1)
    face.incr("n")
    face.set("gone", PAGE, timeout=0.001)
    face.set("b", 1)
    face.delete_many(["b", "n", "none"])
    assert cache.store.memory.bytes > 0
    face.get("gone")
    face.delete("a", version=2)
    face.delete("gone")
    assert (len(cache.store.memory), cache.store.memory.bytes) == (0, 0)
