"""Redis Cluster: an alias whose keys are all on one slot, for real."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from cache_layer import cached, invalidate_tags
from cache_layer.backends import ResilientCache
from cache_layer.checks import check_entries
from tests.cache_layer.caches import Awaited, make_cache, state, wait_for
from tests.cache_layer.test_backend import (
    Asynchronous,
    Contract,
    LeaseContract,
    Synchronous,
)
from tests.faults.cluster import FACTORY, TAG, Cluster
from tests.faults.load import Load


def make(cluster: Cluster, **options: Any) -> ResilientCache:
    """A cache that is told of two nodes, of which none has its slot."""
    first, second = cluster.others
    return make_cache(
        first.url,
        KEY_PREFIX=f"{TAG}-{uuid.uuid4().hex}",
        OPTIONS={
            "CONNECTION_FACTORY": FACTORY,
            "STARTUP_NODES": [("127.0.0.1", second.port)],
            **options,
        },
    )


class OnCluster:
    @pytest.fixture
    def backend(self, quiet_cluster: Cluster, settings: Any) -> Iterator[ResilientCache]:
        # A busy machine is not an outage.
        settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
        backend = make(quiet_cluster)
        yield backend
        assert state(backend) == "redis"
        backend.clear()
        backend.store.close()


class TestSynchronous(OnCluster, Synchronous, Contract):
    pass


class TestAwaited(OnCluster, Asynchronous, Contract):
    pass


class TestLeases(OnCluster, Synchronous, LeaseContract):
    pass


class TestLeasesAwaited(OnCluster, Asynchronous, LeaseContract):
    pass


def test_both_worlds_reach_the_owner_of_the_slot(quiet_cluster: Cluster) -> None:
    cache = make(quiet_cluster)

    async def both() -> None:
        await cache.aset("k", "v")
        assert await asyncio.gather(*[cache.aget("k") for _ in range(100)]) == ["v"] * 100

    asyncio.run(both())
    assert cache.get("k") == "v"
    assert Cluster.command(quiet_cluster.owner, "EXISTS", cache.make_key("k")) == 1
    cache.store.close()


@pytest.mark.parametrize("near", [False, True])
def test_tags_and_functions(quiet_cluster: Cluster, near: bool) -> None:
    first, _second = quiet_cluster.others
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": first.url,
        "KEY_PREFIX": f"{TAG}-{uuid.uuid4().hex}",
        "OPTIONS": {"CONNECTION_FACTORY": FACTORY, "NEAR_CACHE": near},
    }
    calls = []

    with override_settings(CACHES={"default": entry}):

        @cached(key_prefix="t", tags=["user:{number}"])
        def double(number: int) -> int:
            calls.append(number)
            return number * 2

        assert [double(1), double(2), double(1)] == [2, 4, 2]
        invalidate_tags("user:1")
        assert [double(1), double(2)] == [2, 4]
        assert calls == [1, 2, 1]
        double.invalidate_all()
        assert [double(1), double(2)] == [2, 4]
        assert calls == [1, 2, 1, 1, 2]
        assert state(caches["default"]) == "redis"
        caches["default"].clear()
        caches["default"].store.close()


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_replica_takes_over(cluster: Cluster, wrap: Any) -> None:
    cache = make(cluster)
    face = wrap(cache)
    face.set("k", "old")
    full = cache.make_key("k")
    copied = ("KEYS", full)
    wait_for(lambda: cluster.command(cluster.replica, *copied) == [full], "the replica has it")
    cluster.owner.kill()
    assert face.get("k") is None
    face.set("k", "during")
    assert face.get("k") == "during"
    wait_for(lambda: state(cache) == "redis", "the promoted replica is used")
    assert face.get("k") is None
    face.set("k", "new")
    assert face.get("k") == "new"
    assert cluster.command(cluster.replica, "EXISTS", full) == 1
    cache.store.close()


def test_a_slot_that_moves_is_followed(cluster: Cluster) -> None:
    cache = make(cluster)
    face = Awaited(cache)
    cache.set("k", "old")
    assert face.get("k") == "old"
    cluster.command(cluster.owner, "FLUSHALL")
    cluster.move(to=cluster.others[0])
    assert cache.get("k") is None
    assert face.get("k") is None
    wait_for(lambda: state(cache) == "redis", "the new owner is used")
    cache.set("k", "new")
    assert face.get("k") == "new"
    assert cluster.command(cluster.others[0], "EXISTS", cache.make_key("k")) == 1
    cache.store.close()


def test_calls_go_on_while_a_replica_is_promoted(cluster: Cluster, record_property: Any) -> None:
    cache = make(cluster)
    with Load(cache) as load:
        cluster.owner.kill()
        load.wait_for_state("memory")
        recovery = load.wait_for_state("redis")
        load.wait_for_calls()
    load.check(record_property, "cluster node killed, replica promoted", recovery)
    cache.store.close()


@pytest.mark.parametrize("prefix", ["shop", "{}shop", "shop}{"])
def test_a_prefix_without_a_hash_tag_is_refused(prefix: str) -> None:
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": "redis://127.0.0.1:1/0",
        "KEY_PREFIX": prefix,
        "OPTIONS": {"CONNECTION_FACTORY": FACTORY},
    }
    with override_settings(CACHES={"default": entry}):
        assert "cache_layer.E110" in [message.id for message in check_entries()]
    cache = make_cache(
        "redis://127.0.0.1:1/0", KEY_PREFIX=prefix, OPTIONS={"CONNECTION_FACTORY": FACTORY}
    )
    with pytest.raises(ImproperlyConfigured, match="KEY_PREFIX"):
        cache.get("k")
