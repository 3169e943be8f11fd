"""A server that comes back with what it had saved, from before the last invalidations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cache_layer.backends import ResilientCache
from tests.cache_layer.caches import Awaited, close, make_cache, state, wait_for
from tests.services import RedisServer, free_port


@pytest.fixture(autouse=True)
def the_timeouts_that_projects_have() -> None:
    """No server hangs here, so nothing needs to time out: a busy machine is not an outage."""


@pytest.fixture
def saving_server(tmp_path: Path) -> Iterator[RedisServer]:
    """It loads its snapshot when it starts; nothing but SAVE writes one."""
    server = RedisServer("--dir", str(tmp_path))
    server.start()
    yield server
    server.close()


def save(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, socket_timeout=10) as client:
        client.execute_command("SAVE")


@pytest.mark.parametrize("face", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_snapshot_does_not_bring_back_what_was_deleted(
    saving_server: RedisServer, face: Any
) -> None:
    cache = make_cache(saving_server.url)
    other = make_cache(saving_server.url)
    for mine in (cache, other):
        face(mine).set("k", "old")
    save(saving_server)
    face(cache).delete("k")
    saving_server.restart()
    # Nobody asked while it was away; the connections are found dead.
    assert face(cache).get("k") is None
    wait_for(lambda: state(cache) == "redis", "the new process is trusted")
    assert face(cache).get_many(["k"]) == {}
    face(cache).set("k", "new")
    assert face(cache).get("k") == "new"
    cache.store.close()


def test_processes_that_notice_later_drop_nothing_again(saving_server: RedisServer) -> None:
    first = make_cache(saving_server.url)
    params = {"KEY_PREFIX": first.key_prefix, "OPTIONS": {"MAX_ENTRIES": 5}}
    second = ResilientCache(saving_server.url, params)
    assert second.store is not first.store
    second.set("k", "old")
    first.set("k", "old")
    save(saving_server)
    saving_server.restart()
    assert first.get("k") is None
    wait_for(lambda: state(first) == "redis", "the new process is trusted")
    first.set("k", "new")
    assert second.get("k") is None
    wait_for(lambda: state(second) == "redis", "the new process is trusted")
    assert second.get("k") == "new"
    first.store.close()
    second.store.close()


def test_a_project_may_want_what_was_saved(saving_server: RedisServer) -> None:
    cache = make_cache(saving_server.url, OPTIONS={"KEEP_AFTER_RESTART": True})
    cache.set("k", "saved")
    save(saving_server)
    saving_server.restart()
    assert cache.get("k") == "saved"
    assert state(cache) == "redis"
    cache.store.close()


def test_a_refusing_server_keeps_its_content(saving_server: RedisServer) -> None:
    """It is still the same process."""
    cache = make_cache(saving_server.url)
    cache.set("kept", 1)
    with redis.Redis.from_url(saving_server.url, socket_timeout=10) as client:
        client.config_set("min-replicas-to-write", "1")
        cache.set("k", 1)
        assert state(cache) == "memory"
        client.config_set("min-replicas-to-write", "0")
    wait_for(lambda: state(cache) == "redis", "writes are taken again")
    assert cache.get("kept") == 1
    assert cache.get("k") is None
    cache.store.close()


@pytest.mark.parametrize("face", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_process_that_begins_after_a_restart_does_not_trust_the_snapshot(
    saving_server: RedisServer, face: Any
) -> None:
    before = make_cache(saving_server.url)
    before.set("k", "old")
    before.set_many({"kept": 1})
    save(saving_server)
    before.delete("k")
    close(before)
    saving_server.restart()
    after = make_cache(saving_server.url, KEY_PREFIX=before.key_prefix)
    assert face(after).get("k") is None
    wait_for(lambda: state(after) == "redis", "the new server is trusted")
    assert face(after).get("k") is None
    face(after).set("k", "new")
    close(after)
    # The next process finds that it was done.
    later = make_cache(saving_server.url, KEY_PREFIX=before.key_prefix)
    assert face(later).get("k") == "new"
    assert state(later) == "redis"
    close(later)


@pytest.mark.parametrize("face", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_a_server_that_was_demoted_and_promoted_again_is_not_trusted(
    redis_server: RedisServer, face: Any
) -> None:
    """Another server took its place meanwhile, and other processes invalidated there."""
    cache = make_cache(redis_server.url)
    face(cache).set("k", "old")
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        client.execute_command("REPLICAOF", "NO", "ONE")
        # As Sentinel does.
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert face(cache).get("k") is None
    wait_for(lambda: state(cache) == "redis", "the server is trusted again")
    assert face(cache).get("k") is None
    close(cache)


def test_a_project_that_wants_what_was_saved_keeps_it_after_an_outage(
    saving_server: RedisServer,
) -> None:
    cache = make_cache(saving_server.url, OPTIONS={"KEEP_AFTER_RESTART": True})
    cache.set("k", "saved")
    save(saving_server)
    saving_server.kill()
    cache.set("other", 1)
    assert state(cache) == "memory"
    saving_server.restart()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    assert cache.get("k") == "saved"
    close(cache)
