from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import redis

from cache_layer.backends import ResilientCache
from tests.cache_layer.near.helpers import (
    default_alias,
    listening,
    make_near,
)
from tests.services import RedisServer, missing


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Nobody else's, so that its commands can be counted."""
    if shutil.which("redis-server") is None:
        missing("redis-server", "install the program redis-server")
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def url(server: RedisServer) -> Iterator[str]:
    yield server.url
    with redis.Redis.from_url(server.url, socket_timeout=10) as client:
        client.flushall()


@pytest.fixture
def cache(url: str) -> Iterator[ResilientCache]:
    cache = make_near(url)
    yield cache
    cache.store.close()


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        yield client


@pytest.fixture
def store(url: str) -> Iterator[ResilientCache]:
    """The alias of the decorators, with a near cache."""
    with default_alias(url, NEAR_CACHE=True) as cache:
        listening(cache)
        yield cache
