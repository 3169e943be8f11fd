"""A tag lives as long as the longest-lived result that has it, whatever happens beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.core.cache import cache

from cache_layer import FOREVER, cached, get_sync_cache, invalidate_tags
from cache_layer.backends.memory import MemoryStore
from tests.cache_layer.caches import wait_for

pytestmark = pytest.mark.usefixtures("clock", "store")

SHORT = 0.3
LONG = 600


class Counted:
    """Returns another number at each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


Later = Callable[[Any, Any], None]


class Clock:
    """A clock of memory that can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    make = MemoryStore.__init__

    def init(store: MemoryStore, *args: Any, **kwargs: Any) -> None:
        make(store, *args, **{**kwargs, "clock": clock})

    monkeypatch.setattr(MemoryStore, "__init__", init)
    return clock


@pytest.fixture
def later(clock: Clock, store: str, request: pytest.FixtureRequest) -> Iterator[Later]:
    """Go to the time just before a result ends; in Redis, look that its tags end no sooner.

    A tag lives a minute longer than it need, so that no test can wait for its end. ``beside`` is
    a result whose own tags do not matter.
    """
    if store != "redis":

        def skip(value: Any, beside: Any) -> None:
            seconds = cache.ttl(value.cache_key())
            clock.ahead += 100_000_000 if seconds is None else seconds - 1

        yield skip
        return
    with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:

        def look(value: Any, beside: Any) -> None:
            lives = client.pttl(cache.make_key(value.cache_key()))
            names = (value.cache_key(), beside.cache_key(), function_tag(beside))
            apart = set(map(cache.make_key, names))
            # Recoveries of other tests may leave their marks in the same database.
            found = [key.decode() for key in client.scan_iter(cache.make_key("*"))]
            tags = {key: client.pttl(key) for key in found if key not in apart}
            assert len(tags) == 2
            assert all(left == -1 or 0 <= lives < left for left in tags.values()), tags

        yield look


def function_tag(value: Any) -> str:
    return f"@function:{value.cache_key().removesuffix(':')}"


def make(ttl: Any) -> Any:
    count = Counted()

    @cached(key_prefix=f"ttl-{ttl}", tags=["shared"], ttl=ttl)
    def value() -> int:
        return count()

    return value


def touch_to(ttl: Any) -> Callable[[Any], object]:
    return lambda value: cache.touch(value.cache_key(), ttl)


def expire_to(ttl: Any) -> Callable[[Any], object]:
    return lambda value: get_sync_cache().expire(value.cache_key(), ttl)


#: What happens to a short-lived result beside one that lives long.
BESIDE: dict[str, Callable[[Any], object]] = {
    "it is stored": lambda value: value(),
    "it is stored again": lambda value: (value(), value.refresh()),
    "it is touched": lambda value: (value(), cache.touch(value.cache_key(), SHORT / 2)),
    "it is invalidated": lambda value: (value(), value.invalidate()),
}


@pytest.mark.parametrize("happens", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("ttl", [FOREVER, LONG], ids=["for ever", "ten minutes"])
def test_a_short_lived_result_does_not_shorten_the_life_of_its_tag(
    later: Later, ttl: Any, happens: Callable[[Any], object]
) -> None:
    long, short = make(ttl), make(SHORT)
    assert long() == 1
    happens(short)
    later(long, short)
    # Without its tag it would not be served any more.
    assert long() == 1
    invalidate_tags("shared")
    assert long() == 2


@pytest.mark.parametrize(
    "prolong",
    [touch_to(LONG), touch_to(None), expire_to(LONG), expire_to(FOREVER)],
    ids=["touch", "touch for ever", "expire", "expire never"],
)
def test_a_result_made_to_live_longer_takes_its_tags_along(
    later: Later, prolong: Callable[[Any], object]
) -> None:
    value, other = make(SHORT), make(SHORT * 2)
    assert value() == 1
    assert prolong(value)
    later(value, other)
    assert value() == 1
    invalidate_tags("shared")
    assert value() == 2


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_a_result_renewed_in_the_background_takes_its_tags_along(
    later: Later, redis_url: str
) -> None:
    count, other = Counted(), make(SHORT)

    @cached(key_prefix="renewed", tags=["shared"], ttl=SHORT, stale_ttl=LONG)
    def value() -> int:
        return count()

    assert value() == 1
    # As if most of their time were over.
    with redis.Redis.from_url(redis_url) as client:
        for tag in client.scan_iter("*@*"):
            client.expire(tag, 30)
    time.sleep(SHORT + 0.1)
    assert value() == 1
    wait_for(lambda: value() == 2, "the result was renewed")
    later(value, other)
    invalidate_tags("shared")
    assert value() > 2


def test_a_result_made_to_live_shorter_ends_then() -> None:
    value = make(FOREVER)
    assert value() == 1
    assert cache.touch(value.cache_key(), SHORT)
    assert value() == 1
    time.sleep(SHORT + 0.1)
    assert value() == 2
