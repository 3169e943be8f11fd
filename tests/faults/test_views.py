"""What processes may and may not see while only some of them have lost Redis.

Two aliases on one Redis share nothing within a process, so they stand for two processes: one of
them reaches Redis through a proxy.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache_layer.backends import ExpirationPolicy, ResilientCache
from tests.cache_layer.caches import Leases, make_cache, state, wait_for
from tests.faults.proxy import Proxy
from tests.services import RedisServer


@pytest.fixture
def reaching(redis_server: RedisServer) -> Iterator[ResilientCache]:
    """The process that reaches Redis all the time."""
    cache = make_cache(redis_server.url, KEY_PREFIX="shared")
    yield cache
    cache.store.close()


@pytest.fixture
def cut_off(proxy: Proxy) -> Iterator[ResilientCache]:
    """The process that loses Redis."""
    cache = make_cache(proxy.url, KEY_PREFIX="shared")
    yield cache
    cache.store.close()


def lose(cache: ResilientCache, proxy: Proxy) -> None:
    proxy.fault = "silent"
    cache.get("anything")
    assert state(cache) == "memory"


def find_again(cache: ResilientCache, proxy: Proxy) -> None:
    proxy.fault = "none"
    wait_for(lambda: state(cache) == "redis", "it finds Redis again")


def test_processes_agree_on_values_after_one_of_them_was_cut_off(
    reaching: ResilientCache, cut_off: ResilientCache, proxy: Proxy
) -> None:
    reaching.set_many({"deleted": "old", "changed": "old", "theirs": "old", "both": "old"})
    lose(cut_off, proxy)
    cut_off.delete("deleted")
    cut_off.set("changed", "new")
    cut_off.set("both", "mine")
    reaching.set("theirs", "new")
    reaching.set("both", "theirs")
    # Who was cut off sees its own changes and nothing else; who was not, the others.
    assert cut_off.get_many(["deleted", "changed", "theirs", "both"]) == {
        "changed": "new",
        "both": "mine",
    }
    assert reaching.get_many(["deleted", "changed", "theirs", "both"]) == {
        "deleted": "old",
        "changed": "old",
        "theirs": "new",
        "both": "theirs",
    }
    find_again(cut_off, proxy)
    # Nothing that either changed meanwhile has its old value, and nothing is seen by one only.
    for cache in (reaching, cut_off):
        assert cache.get_many(["deleted", "changed", "theirs", "both"]) == {"theirs": "new"}


def test_results_and_leases(
    reaching: ResilientCache, cut_off: ResilientCache, proxy: Proxy
) -> None:
    def keep(cache: ResilientCache, key: str, value: str) -> bool:
        results = cache.operations().results(ExpirationPolicy(300))
        entry = results.result_key(key, ["@tag:t"])
        return cache.run(results.fill(entry, value, cache.run(results.claim(entry))))

    assert keep(reaching, "kept", "old")
    slow = reaching.operations().results(ExpirationPolicy(300))
    entry = slow.result_key("begun", ["@tag:t"])
    begun = reaching.run(slow.claim(entry))
    lease = Leases(reaching).claim("leased")
    lose(cut_off, proxy)
    cut_off.delete_many(["@tag:t", "leased"])
    assert keep(cut_off, "kept", "only here")
    # It cannot know yet.
    assert reaching.get("kept") == "old"
    find_again(cut_off, proxy)
    assert not reaching.run(slow.fill(entry, "of before", begun))
    assert not Leases(reaching).fill("leased", "of before", lease)
    for cache in (reaching, cut_off):
        assert cache.get_many(["kept", "begun", "leased"]) == {}
