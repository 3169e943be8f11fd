"""Commands that Redis refuses to some or to all: nothing is stale, and no outage lasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cache_layer import metrics
from cache_layer.backends import ResilientCache, SharedCounters
from cache_layer.backends.near.operations import NearOperation
from cache_layer.backends.operations.base import Operation, Read, Single, Writing
from cache_layer.exceptions import CommandRefusedError
from tests.cache_layer.caches import Awaited, close, make_cache, state, wait_for
from tests.services import RedisServer, free_port

USERS = {
    "all but dangerous commands": "~* &* +@all -@dangerous",
    "its own prefix only": "~app:* resetchannels +@all",
    "its own prefix, no dangerous commands": "~app:* resetchannels +@all -@dangerous",
    "no client commands": "~app:* +@all -client",
    "no listing of keys": "~app:* +@all -scan -keys",
}


@pytest.fixture(params=USERS.values(), ids=USERS)
def cache(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[ResilientCache]:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *request.param.split())
    cache = make_cache(redis_server.url.replace("://", "://app:pw@"), KEY_PREFIX="app")
    yield cache
    close(cache)


@pytest.mark.usefixtures("default_timeouts")
def test_a_limited_user_comes_back_from_an_outage(
    face: Any, cache: ResilientCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    face.set_many({"deleted": "old", "kept": "right"})
    for _ in range(2):
        redis_server.stop()
        face.delete("deleted")
        assert state(cache) == "memory"
        redis_server.cont()
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        assert face.get("deleted") is None
        assert face.get("kept") == "right"
    refusals = [each.message for each in caplog.records if "does without" in each.message]
    assert len(refusals) == len(set(refusals)) == len(cache.store.describe().get("refused", {}))


def test_a_limited_user_counts_for_all_processes_under_its_prefix(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    metrics.record("limited", "hits", 3)
    cache.set("k", 1)
    metrics.flush(SharedCounters(cache))
    assert SharedCounters(cache).load_counts()["limited:hits"] >= 3
    assert state(cache) == "redis"
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        keys = list(client.scan_iter())
    assert len(keys) > 1
    assert [key for key in keys if not key.startswith(b"app:")] == []


def test_bookkeeping_is_neither_listed_nor_cleared(redis_server: RedisServer) -> None:
    cache = make_cache(redis_server.url)
    cache.set("k", 1)
    metrics.record("kept", "hits", 2)
    metrics.flush(SharedCounters(cache))
    before = SharedCounters(cache).load_counts()
    assert cache.keys("*") == ["k"]
    cache.clear()
    assert SharedCounters(cache).load_counts() == before
    close(cache)


RENAMED: dict[str, tuple[str, ...]] = {
    "evalsha": ("EVALSHA",),
    "unlink": ("UNLINK",),
    "evalsha and unlink": ("EVALSHA", "UNLINK"),
    "scripts": ("EVALSHA", "EVAL"),
    "info, client": ("INFO", "CLIENT"),
}


@pytest.mark.parametrize("commands", RENAMED.values(), ids=RENAMED)
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_what_is_deleted_is_gone_whatever_commands_are_missing(
    commands: tuple[str, ...], awaited: bool
) -> None:
    options = [part for name in commands for part in ("--rename-command", name, "")]
    server = RedisServer(*options)
    server.start()
    cache = make_cache(server.url)
    face: Any = Awaited(cache) if awaited else cache
    try:
        for delete in (
            lambda: face.delete("k"),
            lambda: face.delete_many(["k", "other"]),
            lambda: face.delete_pattern("k*"),
            face.clear,
        ):
            face.set("k", "old")
            assert face.get("k") == "old"
            delete()
            assert face.get("k") is None
            with redis.Redis.from_url(server.url, socket_timeout=10) as client:
                assert client.exists(cache.make_key("k")) == 0
        assert state(cache) == "redis"
    finally:
        close(cache)
        server.close()


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_a_pattern_that_cannot_be_looked_for_is_an_error_and_no_outage(awaited: bool) -> None:
    server = RedisServer("--rename-command", "SCAN", "")
    server.start()
    cache = make_cache(server.url)
    face: Any = Awaited(cache) if awaited else cache
    try:
        face.set("k", 1)
        for refused in (face.clear, lambda: face.delete_pattern("*"), face.keys):
            with pytest.raises(CommandRefusedError, match="SCAN"):
                refused()
        assert state(cache) == "redis"
        assert face.get("k") == 1
    finally:
        close(cache)
        server.close()


def operations() -> set[type[Operation[Any]]]:
    found: set[type[Operation[Any]]] = set()
    more: list[type[Operation[Any]]] = [Operation]
    while more:
        subclasses = more.pop().__subclasses__()
        found.update(subclasses)
        more += subclasses
    return {each for each in found if each.__module__.startswith("cache_layer.")}


def test_every_operation_says_what_a_refusal_of_it_means() -> None:
    abstract = {Single, Read, Writing, NearOperation}
    missing = {
        operation.__name__
        for operation in operations() - abstract
        if "refusal" not in vars(operation) and not operation.__subclasses__()
    }
    assert missing == set()


def test_a_cluster_s_node_is_refused_with_the_remedy(default_timeouts: None) -> None:
    server = RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server.start()
    cache = make_cache(server.url)
    try:
        cache.set("k", 1)
        assert cache.get("k") == 1
        described = cache.store.describe()
        assert described["state"] == "memory"
        assert "ClusterConnectionFactory" in str(described["reason"])
    finally:
        close(cache)
        server.close()
