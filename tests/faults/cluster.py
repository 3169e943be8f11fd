"""A Redis Cluster of the tests' own."""

from __future__ import annotations

from typing import Any

import redis

from tests.cache_layer.caches import wait_for
from tests.services import RedisServer, free_port

SLOTS = 16384
PRIMARIES = 3
#: The hash tag of the aliases, and the option that puts them on a cluster.
TAG = "{shop}"
FACTORY = "cache_layer.backends.redis.cluster.ClusterConnectionFactory"


class Cluster:
    """Three primaries, and a replica of the one that owns a slot.

    ``node_timeout`` is in milliseconds: who does not answer for so long is taken for dead.
    """

    def __init__(self, slot: int, node_timeout: int = 1000) -> None:
        self._node_timeout = str(node_timeout)
        self._buses = [free_port() for _ in range(PRIMARIES + 1)]
        self.nodes = [self._node(bus) for bus in self._buses]
        share = -(-SLOTS // PRIMARIES)
        number = slot // share
        self.owner = self.nodes[number]
        self.others = [self.nodes[each] for each in range(PRIMARIES) if each != number]
        self.replica = self.nodes[-1]
        self._slot = slot
        self._shares = [(start, min(start + share, SLOTS) - 1) for start in range(0, SLOTS, share)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node, (first, last) in zip(self.nodes, self._shares, strict=False):
            self.command(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for epoch, node in enumerate(self.nodes, start=1):
            self.command(node, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
            self.command(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_for(lambda: all(map(self._knows_all, self.nodes)), "the nodes know each other")
        owner = self.command(self.owner, "CLUSTER", "MYID")
        self.command(self.replica, "CLUSTER", "REPLICATE", owner)
        wait_for(self._replicated, "the replica has a copy")
        wait_for(self._well, "the cluster serves every slot")

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def move(self, to: RedisServer) -> None:
        """Give the slot to another primary, without its keys."""
        wanted = self.command(to, "CLUSTER", "MYID")
        for node in (to, *(each for each in self.nodes[:-1] if each is not to)):
            self.command(node, "CLUSTER", "SETSLOT", self._slot, "NODE", wanted)

    def begin_move(self, to: RedisServer) -> None:
        """Declare that the slot moves to another primary; its keys are where they were."""
        source, target = (self.command(node, "CLUSTER", "MYID") for node in (self.owner, to))
        self.command(to, "CLUSTER", "SETSLOT", self._slot, "IMPORTING", source)
        self.command(self.owner, "CLUSTER", "SETSLOT", self._slot, "MIGRATING", target)

    def move_with_keys(self, to: RedisServer) -> None:
        """Move the slot and its keys to another primary, as ``redis-cli`` does."""
        self.begin_move(to)
        while True:
            keys = self.command(self.owner, "CLUSTER", "GETKEYSINSLOT", self._slot, 100)
            if not keys:
                break
            parts = ("127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            self.command(self.owner, "MIGRATE", *parts)
        self.move(to)

    @staticmethod
    def command(node: RedisServer, *words: Any) -> Any:
        with redis.Redis.from_url(node.url, socket_timeout=10, decode_responses=True) as client:
            return client.execute_command(*words)

    def _node(self, bus: int) -> RedisServer:
        return RedisServer(
            *("--cluster-enabled", "yes"),
            *("--cluster-port", str(bus)),
            *("--cluster-node-timeout", self._node_timeout),
            *("--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0"),
        )

    def _knows_all(self, node: RedisServer) -> bool:
        lines = self.command(node, "CLUSTER", "NODES").splitlines()
        return sum(" connected" in line for line in lines) == len(self.nodes)

    def _replicated(self) -> bool:
        with redis.Redis.from_url(self.replica.url, socket_timeout=10) as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def _well(self) -> bool:
        return all(
            "cluster_state:ok" in self.command(node, "CLUSTER", "INFO") for node in self.nodes
        )
