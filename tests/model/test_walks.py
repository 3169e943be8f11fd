"""Outages and restarts of the model, driven on the real cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.recovery import PurgeKeyspaces, Replay, clean_mark
from tests.model.walks import Walk
from tests.services import RedisServer

WALKS = 30


@pytest.fixture(autouse=True)
def settings_of_walks(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.CACHE_LAYER_PROBE_INTERVAL = 0.01
    caplog.set_level(logging.CRITICAL, logger="cache_layer")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer("--dir", str(tmp_path))
    server.start()
    yield server
    server.close()


def stale(server: RedisServer, seeds: range) -> list[str]:
    with redis.Redis.from_url(
        server.url, socket_timeout=10, retry_on_error=[redis.ConnectionError]
    ) as admin:
        for seed in seeds:
            walk = Walk(server, admin, seed)
            walk.run()
            if walk.stale:
                return walk.stale
    return []


@pytest.mark.slow
def test_no_walk_serves_what_was_invalidated_before_the_read_began(server: RedisServer) -> None:
    found = stale(server, range(WALKS))
    assert not found, found[0]


def nothing(operation: Operation[None]) -> Any:
    yield from ()


def only_marks(operation: PurgeKeyspaces) -> Any:
    for keyspace in operation.keyspaces:
        yield [("SET", clean_mark(keyspace), operation.server)]


MISSED: dict[str, tuple[type, str, Any]] = {
    "replay": (Replay, "steps", nothing),
    "purge": (PurgeKeyspaces, "steps", only_marks),
    "clear": (MemoryStore, "clear", lambda memory: None),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", MISSED)
def test_without_a_rule_of_the_recovery_some_walk_does(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    owner, name, instead = MISSED[rule]
    monkeypatch.setattr(owner, name, instead)
    assert stale(server, range(10 * WALKS))
