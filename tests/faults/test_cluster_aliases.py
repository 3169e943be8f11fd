"""Two aliases on one cluster whose hash tags are on different nodes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from cache_layer.backends.redis.cluster import slot_of
from tests.cache_layer.caches import Awaited, close, make_cache, state
from tests.faults.cluster import SLOTS, Cluster
from tests.services import RedisServer

FIRST = "{shop}"
#: One whose slot is in another third, and so on another primary.
OTHER = next(
    tag
    for tag in (f"{{other{number}}}" for number in range(100))
    if abs(slot_of(tag) - slot_of(FIRST)) > SLOTS // 3 + 1
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(slot_of(FIRST), node_timeout=30_000)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def make(cluster: Cluster, tag: str) -> ResilientCache:
    factory = "cache_layer.backends.redis.cluster.ClusterConnectionFactory"
    return make_cache(
        # The same LOCATION and OPTIONS: only the prefixes differ.
        cluster.nodes[0].url,
        KEY_PREFIX=f"{tag}-{uuid.uuid4().hex}",
        OPTIONS={"CONNECTION_FACTORY": factory},
    )


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Any:
    return (lambda cache: cache) if request.param == "sync" else Awaited


@pytest.fixture
def pair(cluster: Cluster, settings: Any) -> Iterator[tuple[ResilientCache, ResilientCache]]:
    settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
    found = make(cluster, FIRST), make(cluster, OTHER)
    yield found
    for cache in found:
        close(cache)


def holds(node: RedisServer, key: str) -> bool:
    with redis.Redis.from_url(node.url, socket_timeout=10) as client:
        return key.encode() in set(client.scan_iter("*"))


def test_each_alias_talks_to_the_owner_of_its_own_slot(
    cluster: Cluster, pair: tuple[ResilientCache, ResilientCache], face: Any
) -> None:
    for cache in pair:
        face(cache).set("k", cache.key_prefix)
        face(cache).set_many({"a": 1, "b": 2})
    for cache in pair:
        assert face(cache).get("k") == cache.key_prefix
        assert face(cache).get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert state(cache) == "redis"
    first, other = (cache.make_key("k") for cache in pair)
    owners = [node for node in cluster.nodes[:-1] if holds(node, other)]
    assert holds(cluster.owner, first)
    assert len(owners) == 1
    assert owners[0] is not cluster.owner


def test_clearing_one_alias_leaves_the_other_alone(
    pair: tuple[ResilientCache, ResilientCache], face: Any
) -> None:
    first, other = pair
    for cache in pair:
        face(cache).set("k", 1)
        face(cache).set("users:1", 1)
    assert face(first).delete_pattern("users:*") == 1
    assert face(other).get("users:1") == 1
    face(other).clear()
    assert face(first).get("k") == 1
    assert face(other).get("k") is None


def test_aliases_with_one_hash_tag_share_what_they_know(cluster: Cluster, settings: Any) -> None:
    settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
    one, two = make(cluster, FIRST), make(cluster, FIRST)
    one.set("k", "one")
    two.set("k", "two")
    assert (one.get("k"), two.get("k")) == ("one", "two")
    close(one)
    close(two)
