from __future__ import annotations

from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from cache_layer.conf import Settings, cache_from_env, settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "CACHE_DEFAULT_TTL", "CACHE_KEY_PREFIX"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", Settings.__annotations__)
@pytest.mark.usefixtures("default_timeouts")
def test_every_setting_has_a_default_and_can_be_overridden(name: str) -> None:
    with override_settings():
        assert getattr(settings, name) == Settings.defaults[name]
        with override_settings(**{f"CACHE_LAYER_{name}": "other"}):
            assert getattr(settings, name) == "other"
        assert getattr(settings, name) == Settings.defaults[name]


def test_an_empty_environment_means_memory_and_the_documented_defaults() -> None:
    assert cache_from_env() == {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "TIMEOUT": 300,
        "KEY_PREFIX": "agent_service",
    }


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("  redis://a ", "redis://a"),
        ("redis://a:1/0, redis://b:2/0", ["redis://a:1/0", "redis://b:2/0"]),
        ("", None),
        (" , ", None),
        ("nonsense", "nonsense"),
    ],
)
def test_the_url_of_the_environment_is_the_location(
    url: str, location: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert cache_from_env().get("LOCATION") == location


@pytest.mark.parametrize(
    ("ttl", "timeout"),
    [("60", 60), (" 60 ", 60), ("0", 0), ("none", None), ("None", None), ("", 300), ("-5", -5)],
)
def test_the_default_ttl(ttl: str, timeout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DEFAULT_TTL", ttl)
    assert cache_from_env()["TIMEOUT"] == timeout


def test_a_ttl_that_means_nothing_is_kept_for_the_checks_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "abc")
    entry = cache_from_env()
    assert entry["TIMEOUT"] == "abc"
    assert BaseCache(entry).default_timeout == 300


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_KEY_PREFIX", "env")
    monkeypatch.setenv("REDIS_URL", "redis://env")
    entry = cache_from_env(KEY_PREFIX="mine", OPTIONS={"MAX_ENTRIES": 5})
    assert entry["KEY_PREFIX"] == "mine"
    assert entry["LOCATION"] == "redis://env"
    assert entry["OPTIONS"] == {"MAX_ENTRIES": 5}
