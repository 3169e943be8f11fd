"""Redis in other shapes than one server: what works, and what is refused."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from cache_layer.backends import ResilientCache
from cache_layer.checks import check_entries
from tests.cache_layer.caches import Awaited, make_cache, state, wait_for
from tests.faults.load import Load
from tests.services import RedisServer, free_port

SENTINEL = """
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor mymaster 127.0.0.1 {primary} 1
sentinel down-after-milliseconds mymaster 1500
sentinel failover-timeout mymaster 2000
"""


class Sentinel:
    """A primary, a replica and the sentinel that watches them."""

    def __init__(self, directory: Path) -> None:
        self.primary = RedisServer()
        self.replica = RedisServer("--replica-read-only", "no", "--repl-diskless-sync-delay", "0")
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        with self.client(self.replica) as replica:
            replica.execute_command("REPLICAOF", "127.0.0.1", self.primary.port)
            wait_for(
                lambda: replica.info("replication")["master_link_status"] == "up", "replication"
            )
        config = self._directory / "sentinel.conf"
        config.write_text(
            SENTINEL.format(port=self.port, directory=self._directory, primary=self.primary.port)
        )
        self._process = subprocess.Popen(
            ["redis-server", str(config), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with redis.Redis(port=self.port, socket_timeout=5) as sentinel:
            wait_for(lambda: self._sees_the_replica(sentinel), "the sentinel knows the replica")

    def client(self, server: RedisServer) -> redis.Redis:
        return redis.Redis.from_url(server.url, socket_timeout=10)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        self.replica.close()
        self.primary.close()

    @staticmethod
    def _sees_the_replica(sentinel: redis.Redis) -> bool:
        try:
            replicas = sentinel.execute_command("SENTINEL", "REPLICAS", "mymaster")
        except redis.ConnectionError:
            return False
        return bool(replicas)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    sentinel = Sentinel(tmp_path)
    try:
        sentinel.start()
        yield sentinel
    finally:
        sentinel.close()


@pytest.fixture
def cache(sentinel: Sentinel) -> Iterator[ResilientCache]:
    cache = make_cache(
        "redis://mymaster/0",
        OPTIONS={
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", sentinel.port)],
        },
    )
    yield cache
    cache.store.close()


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_sentinel_promotes_a_replica(sentinel: Sentinel, cache: ResilientCache, wrap: Any) -> None:
    face = wrap(cache)
    face.set("k", "old")
    face.set("kept", 1)
    full = cache.make_key("k")
    with sentinel.client(sentinel.replica) as replica:
        wait_for(lambda: replica.exists(full), "the replica has the value")
        stale = replica.get(full)
        face.delete("k")
        wait_for(lambda: not replica.exists(full), "the replica heard of the deletion")
        # As if it had not heard: replication is never waited for.
        replica.set(full, stale)
        sentinel.primary.kill()
        assert face.get("k") is None
        face.set("k2", "during")
        assert face.get("k2") == "during"
        assert state(cache) == "memory"
        wait_for(lambda: state(cache) == "redis", "the promoted replica is used")
        assert face.get_many(["k", "k2", "kept"]) == {}
        face.set("k", "new")
        assert face.get("k") == "new"
        assert replica.exists(full)


def test_sentinel_under_load(
    sentinel: Sentinel, cache: ResilientCache, record_property: Any
) -> None:
    with Load(cache) as load:
        sentinel.primary.kill()
        load.wait_for_state("memory")
        recovery = load.wait_for_state("redis")
        load.wait_for_calls()
    load.check(record_property, "primary killed, replica promoted", recovery)


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_node_of_a_cluster_is_not_used(tmp_path: Path, wrap: Any) -> None:
    """Part of the keys would fail; it says so once and answers from memory."""
    node = RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.start()
    cache = make_cache(node.url)
    face = wrap(cache)
    try:
        face.set("k", 1)
        assert face.get("k") == 1
        assert "Redis Cluster" in cache.store.describe()["reason"]
        time.sleep(1)
        assert state(cache) == "memory"
    finally:
        cache.store.close()
        node.close()


@pytest.mark.parametrize(
    "options",
    [
        {"REDIS_CLIENT_CLASS": "redis.cluster.RedisCluster"},
        {"CLIENT_CLASS": "django_redis.client.ShardClient"},
    ],
)
def test_clients_of_several_servers_are_refused(options: dict[str, str]) -> None:
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": "redis://127.0.0.1:1/0"}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": options}}):
        assert "cache_layer.E108" in [message.id for message in check_entries()]
    cache = make_cache("redis://127.0.0.1:1/0", OPTIONS=options)
    with pytest.raises(ImproperlyConfigured, match="several servers"):
        cache.get("k")
    cache.store.close()
