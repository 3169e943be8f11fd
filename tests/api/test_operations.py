from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from cache_layer import get_sync_cache
from tests.api.conftest import API, Client, client_of, make_user

METRICS, HEALTH = f"{API}cache/metrics/", f"{API}health/"
pytestmark = pytest.mark.django_db


def test_metrics_are_for_staff(stranger: Any) -> None:
    assert Client().get(METRICS).status_code == 401
    assert client_of(stranger).get(METRICS).status_code == 403
    users = get_sync_cache("users")
    users.set("a", 1)
    staff = client_of(make_user("staff", staff=True))
    before = staff.get(METRICS).json()["metrics"]
    users.get("a")
    users.get("b")
    after = staff.get(METRICS).json()
    assert after["metrics"]["users:hits"] == before["users:hits"] + 1
    assert after["metrics"]["users:misses"] == before.get("users:misses", 0) + 1
    assert 0 <= after["hit_rate"] <= 100
    assert after["backend"]["state"] == "memory"


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
def test_the_metrics_of_another_cache_say_which_it_is_and_health_is_as_well() -> None:
    staff = client_of(make_user("staff", staff=True))
    backend = staff.get(METRICS).json()["backend"]
    assert backend["state"] == "memory"
    assert "LocMemCache" in backend["reason"]
    health = staff.get(HEALTH).json()
    assert (health["status"], health["database"]) == ("ok", "ok")
    assert "LocMemCache" in health["cache"]["reason"]


def test_health_tells_strangers_no_details(stranger: Any) -> None:
    for client in (Client(), client_of(stranger)):
        response = client.get(HEALTH)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
    details = client_of(make_user("staff", staff=True)).get(HEALTH).json()
    assert details["database"] == "ok"
    assert details["cache"]["state"] == "memory"


def test_health_is_503_while_the_database_does_not_answer(monkeypatch: Any) -> None:
    from django.db import connection

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection refused")

    client = Client()
    client.cookies["sessionid"] = "a" * 32
    monkeypatch.setattr(connection, "cursor", refuse)
    response = client.get(HEALTH)
    assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
