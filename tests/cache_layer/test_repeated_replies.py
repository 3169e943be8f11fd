"""Replies that nobody asked for are never taken for the replies to later commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cache_layer.backends import ResilientCache
from cache_layer.backends.redis.errors import RedisUnavailableError
from tests.cache_layer.caches import close, make_cache, state, wait_for
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(proxy: Proxy) -> Iterator[ResilientCache]:
    cache = make_cache(proxy.url)
    yield cache
    close(cache)


def test_no_call_gets_the_value_of_another_key(
    face: Any, cache: ResilientCache, proxy: Proxy
) -> None:
    keys = [f"k{number}" for number in range(5)]
    cache.set_many({key: key for key in keys})
    proxy.fault = "repeat"
    for _ in range(5):
        for key in keys:
            # Redis or memory answers: the right value or none.
            assert face.get(key, key) == key
            assert face.get_many([key]) in ({key: key}, {})
            assert face.has_key(key) in (True, False)
            face.set_many({key: key, f"{key}:2": key})
    proxy.fault = "none"
    wait_for(lambda: face.set("k", 1) and state(cache) == "redis", "Redis answers again")
    assert [face.get(key, key) for key in keys] == keys


def test_a_connection_that_was_in_use_when_an_outage_began_is_not_used_again(
    cache: ResilientCache,
) -> None:
    executor: Any = cache.store.transport._executor()
    in_use = executor._take()
    (before,) = in_use.execute_all([("CLIENT", "ID")])
    cache.store.transport.renew()
    executor._give_back(in_use)
    assert executor.execute(("CLIENT", "ID")) != before


def test_a_probe_that_fails_leaves_no_connection_to_the_server_it_asked(
    cache: ResilientCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport: Any = cache.store.transport
    before = transport._executor().execute(("CLIENT", "ID"))
    monkeypatch.setattr(transport, "deadline", lambda: float("-inf"))
    with pytest.raises(RedisUnavailableError):
        transport.probe()
    assert transport._executor().execute(("CLIENT", "ID")) != before


def test_calls_one_after_the_other_share_a_connection(cache: ResilientCache) -> None:
    executor: Any = cache.store.transport._executor()
    assert executor.execute(("CLIENT", "ID")) == executor.execute(("CLIENT", "ID"))
