"""Rates are counted in the cache, and the cache may lose its Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.core.cache import caches
from rest_framework.test import APIClient

from tests.api.conftest import API
from tests.services import RedisServer

pytestmark = [pytest.mark.django_db, pytest.mark.redis]
SESSIONS = f"{API}sessions/"
RATE = 5


@pytest.fixture
def limited(settings: Any, redis_server: RedisServer) -> RedisServer:
    """The Redis in which the rates are counted: so many of a kind an hour."""
    settings.CACHES = {
        "default": {**settings.CACHES["default"], "LOCATION": redis_server.url},
    }
    # A busy machine is no outage; a Redis that hangs is one soon enough.
    settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 1.0
    settings.AGENT_SESSIONS_READ_RATE = f"{RATE}/hour"
    settings.AGENT_SESSIONS_WRITE_RATE = f"{RATE}/hour"
    return redis_server


def statuses(api: APIClient, number: int) -> list[int]:
    return [api.get(SESSIONS).status_code for _ in range(number)]


def counted_in(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        return len(client.keys("*agent_sessions:rate:read*"))


@pytest.mark.parametrize("outage", ["kill", "stop"])
def test_the_limit_holds_when_redis_goes_away(
    api: APIClient, limited: RedisServer, outage: str
) -> None:
    assert statuses(api, RATE - 1) == [200] * (RATE - 1)
    assert counted_in(limited) == 1
    getattr(limited, outage)()
    # This process counts for itself from here, from nothing at worst.
    after = statuses(api, RATE + 3)
    allowed = after.count(200)
    assert 1 <= allowed <= RATE
    assert after == [200] * allowed + [429] * (RATE + 3 - allowed)
    refused = api.get(SESSIONS)
    # A window is an hour.
    assert 0 < int(refused["Retry-After"]) <= 3600
    assert refused.json()["code"] == "throttled"
    writes = [
        api.post(SESSIONS, {"agent_id": "a"}, format="json").status_code for _ in range(RATE + 1)
    ]
    assert writes == [201] * RATE + [429]


def test_who_was_refused_stays_refused_when_redis_goes_away_and_asks_again(
    api: APIClient, limited: RedisServer
) -> None:
    assert statuses(api, RATE + 1) == [200] * RATE + [429]
    limited.kill()
    assert statuses(api, 3 * RATE).count(200) <= RATE
    assert caches["default"].get("anything") is None
    assert statuses(api, 3) == [429] * 3
