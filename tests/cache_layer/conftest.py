from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import override_settings

from cache_layer.backends import ResilientCache
from tests import services
from tests.cache_layer.caches import Awaited

# These tests are not about outages: a busy machine must not look like one.
PATIENT = {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10}


@pytest.fixture(params=["memory", "redis", "dead redis"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The default cache over memory, Redis, and a Redis that is not there."""
    entry: dict[str, Any] = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "KEY_PREFIX": f"test-{uuid.uuid4().hex}",
    }
    if request.param == "redis":
        entry["LOCATION"] = request.getfixturevalue("redis_url")
        entry["OPTIONS"] = PATIENT
    elif request.param == "dead redis":
        entry["LOCATION"] = f"redis://127.0.0.1:{services.free_port()}/0"
    with override_settings(CACHES={"default": entry}):
        cache.clear()
        yield request.param
        cache.clear()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, cache: ResilientCache) -> Any:
    """The methods of the module's cache, called, and the awaited ones."""
    return cache if request.param == "sync" else Awaited(cache)
