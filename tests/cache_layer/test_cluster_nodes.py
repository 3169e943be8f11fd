"""What a node of a cluster answers about its slots, and whom it makes the cache ask."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cache_layer.backends.redis.cluster import Nodes

ASKED = ("seed", 7000)
REPLY = [
    [0, 5460, [b"one", 7001, b"id"], [b"one-replica", 7101, b"id"]],
    # A node that does not know its own host.
    [5461, 10922, [b"", 7002, b"id"]],
]


@pytest.mark.parametrize(
    ("slot", "owner"),
    [
        (0, ("one", 7001)),
        (5460, ("one", 7001)),
        (5461, ("seed", 7002)),
        (10922, ("seed", 7002)),
    ],
)
def test_the_first_server_of_a_slot_is_its_primary(slot: int, owner: tuple[str, int]) -> None:
    assert Nodes([ASKED]).owner(slot, ASKED, REPLY) == owner


def test_a_slot_that_nobody_serves_is_an_outage() -> None:
    with pytest.raises(RedisConnectionError, match="10923"):
        Nodes([ASKED]).owner(10923, ASKED, REPLY)


def test_the_servers_of_the_slot_are_asked_first_the_next_time() -> None:
    nodes = Nodes([ASKED])
    assert list(nodes) == [ASKED]
    nodes.owner(1, ASKED, REPLY)
    assert list(nodes) == [("one", 7001), ("one-replica", 7101), ASKED]
