"""The near cache on a real Redis Cluster: reports of the slot's owner, wherever the slot goes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from cache_layer.backends.redis.cluster import slot_of
from tests.cache_layer.caches import Awaited, close, make_cache, state, wait_for
from tests.cache_layer.near.helpers import heard, listening, near_of, write_at_random
from tests.cache_layer.test_backend import (
    Asynchronous,
    Contract,
    LeaseContract,
    Synchronous,
)
from tests.faults.cluster import FACTORY, TAG, Cluster
from tests.faults.load import Load


def make(cluster: Cluster) -> ResilientCache:
    """A cache that is told of a node which does not have its slot."""
    return make_cache(
        cluster.others[0].url,
        KEY_PREFIX=f"{TAG}-{uuid.uuid4().hex}",
        OPTIONS={
            "CONNECTION_FACTORY": FACTORY,
            "STARTUP_NODES": [("127.0.0.1", cluster.others[1].port)],
            "NEAR_CACHE": True,
        },
    )


@pytest.fixture
def cache(cluster: Cluster) -> Iterator[ResilientCache]:
    cache = make(cluster)
    listening(cache)
    yield cache
    close(cache)


class OnCluster:
    @pytest.fixture
    def backend(self, quiet_cluster: Cluster, settings: Any) -> Iterator[ResilientCache]:
        # A busy machine is not an outage.
        settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
        backend = make(quiet_cluster)
        listening(backend)
        yield backend
        assert near_of(backend).on
        assert state(backend) == "redis"
        backend.clear()
        close(backend)


class TestSynchronous(OnCluster, Synchronous, Contract):
    pass


class TestAwaited(OnCluster, Asynchronous, Contract):
    pass


class TestLeases(OnCluster, Synchronous, LeaseContract):
    pass


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_reads_are_answered_here_until_another_client_writes(
    quiet_cluster: Cluster, settings: Any, wrap: Any
) -> None:
    settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
    cache = make(quiet_cluster)
    listening(cache)
    face = wrap(cache)
    with redis.Redis.from_url(quiet_cluster.owner.url, socket_timeout=10) as owner:
        face.set("k", 1)
        heard(cache, owner)
        assert face.get("k") == 1
        asked = int(owner.info("commandstats")["cmdstat_get"]["calls"])
        assert [face.get("k") for _ in range(50)] == [1] * 50
        assert int(owner.info("commandstats")["cmdstat_get"]["calls"]) == asked
        owner.set(cache.make_key("k"), 2)
        heard(cache, owner)
        assert face.get("k") == 2
    close(cache)


def test_racing_changes_leave_nothing_stale(quiet_cluster: Cluster, settings: Any) -> None:
    settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
    cache = make(quiet_cluster)
    listening(cache)
    keys = [f"k{number}" for number in range(20)]
    with redis.Redis.from_url(quiet_cluster.owner.url, socket_timeout=10) as owner:
        written = write_at_random(owner, [cache.make_key(key) for key in keys], 5, seconds=0.5)
        heard(cache, owner)
        assert [cache.get(key, 0) for key in keys] == written
        assert near_of(cache).on
    close(cache)


def hits_alone(cache: ResilientCache, key: str, value: object) -> None:
    """Put a copy into the near cache, so that nothing asks Redis for the key any more."""
    cache.set(key, value)
    wait_for(
        lambda: cache.get(key) == value and cache.make_key(key) in near_of(cache)._entries,
        "the value is in the near cache",
    )


def test_a_process_that_only_has_hits_hears_that_its_slot_moved(
    cluster: Cluster, cache: ResilientCache
) -> None:
    hits_alone(cache, "k", "old")
    cluster.move_with_keys(to=cluster.others[0])
    cluster.command(cluster.others[0], "SET", cache.make_key("k"), 7)
    # Nothing but the connection for the reports can notice.
    wait_for(lambda: cache.get("k") != "old", "the copy is gone")
    wait_for(lambda: state(cache) == "redis", "the new owner is used")
    hits_alone(cache, "k", "new")
    cluster.command(cluster.others[0], "SET", cache.make_key("k"), 8)
    wait_for(lambda: cache.get("k") == 8, "reports come from the new owner")


def test_a_slot_that_moves_without_its_keys_is_noticed_by_the_listener_alone(
    cluster: Cluster, cache: ResilientCache
) -> None:
    hits_alone(cache, "k", "old")
    # As after a failover that this process did not see: the key is not deleted on this node.
    target = cluster.others[0]
    for node in (target, cluster.others[1]):
        wanted = cluster.command(target, "CLUSTER", "MYID")
        cluster.command(node, "CLUSTER", "SETSLOT", slot_of(TAG), "NODE", wanted)
    cluster.command(target, "CLUSTER", "BUMPEPOCH")
    cluster.command(target, "SET", cache.make_key("k"), 7)
    wait_for(lambda: cache.get("k") != "old", "the copy is gone")
    wait_for(lambda: state(cache) == "redis", "the new owner is used")
    assert cache.get("k") is None
    hits_alone(cache, "k", "new")


def test_the_near_cache_is_off_while_the_slot_moves(
    cluster: Cluster, cache: ResilientCache
) -> None:
    hits_alone(cache, "k", "old")
    cluster.begin_move(to=cluster.others[0])
    wait_for(lambda: not near_of(cache).on, "the near cache is off")
    assert len(near_of(cache)) == 0
    cluster.move_with_keys(to=cluster.others[0])
    wait_for(
        lambda: (cache.set("k", "new"), cache.get("k"), near_of(cache).on)[-1],
        "the new owner is used, and reports",
    )
    hits_alone(cache, "k", "newer")


def test_a_killed_owner_empties_the_near_cache(cluster: Cluster, cache: ResilientCache) -> None:
    hits_alone(cache, "k", "old")
    cluster.owner.kill()
    wait_for(lambda: not near_of(cache).on, "the near cache is off")
    cache.set("k", "during")
    assert cache.get("k") == "during"
    wait_for(lambda: state(cache) == "redis", "the promoted replica is used")
    hits_alone(cache, "k", "new")
    cluster.command(cluster.replica, "SET", cache.make_key("k"), 8)
    wait_for(lambda: cache.get("k") == 8, "reports come from the promoted replica")


def test_calls_go_on_while_a_replica_is_promoted(cluster: Cluster, record_property: Any) -> None:
    cache = make(cluster)
    with Load(cache) as load:
        cluster.owner.kill()
        load.wait_for_state("memory")
        recovery = load.wait_for_state("redis")
        load.wait_for_calls()
    load.check(record_property, "cluster with near cache, node killed", recovery)
    close(cache)
