from __future__ import annotations

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from tests.api.conftest import Client

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.api.mounts")]


@pytest.mark.parametrize(
    ("sessions", "slash"),
    [
        ("/api/v2/acme/sessions", "/"),
        ("/named/sessions", "/"),
        ("/routed/conversations", "/"),
        ("/bare/talks", ""),
    ],
)
def test_every_route_answers_wherever_the_api_is_mounted(
    api: APIClient, sessions: str, slash: str
) -> None:
    created = api.post(f"{sessions}{slash}", {"agent_id": "a"}, format="json")
    assert created.status_code == 201
    session = f"{sessions}/{created.json()['id']}"
    assert created["Location"] == f"http://testserver{session}{slash}"
    message = {"role": "user", "content": "Hello"}
    assert api.post(f"{session}/messages{slash}", message, format="json").status_code == 201
    for path in (
        *(sessions, f"{sessions}/stats", f"{sessions}/search", f"{sessions}/export"),
        *(session, f"{session}/messages", f"{session}/context", f"{session}/export"),
    ):
        assert api.get(f"{path}{slash}?q=hello").status_code == 200, path
    events = api.get(f"{session}/events{slash}")
    assert b"Hello" in b"".join(events)
    page = api.get(f"{sessions}{slash}", headers={"Accept": "text/html"})
    assert page["Content-Type"].startswith("text/html")
    assert api.get(f"{session}/context{slash}", headers={"Accept": "text/html"}).status_code == 200
    assert api.patch(f"{session}/context{slash}", {"a": 1}, format="json").status_code == 200
    many = {"session_ids": [created.json()["id"]], "status": "completed"}
    assert api.post(f"{sessions}/bulk-status{slash}", many, format="json").status_code == 200
    assert api.post(f"{sessions}/erase{slash}", {"confirm": True}, format="json").status_code == 200
    assert api.delete(f"{session}{slash}").status_code == 404


def test_health_and_addresses_that_do_not_exist_answer_under_captured_arguments() -> None:
    assert Client().get("/api/v2/acme/health/").status_code == 200
    assert Client().get("/api/v2/acme/cache/metrics/").status_code == 401
    assert Client().get("/api/v2/acme/sessions/a/b/c/").status_code == 404
    assert Client().get("/api/v2/acme/health").status_code == 308


def test_names_of_the_project_stay_its_own() -> None:
    assert reverse("health") == "/health/"
    assert reverse("session-list") == "/sessions/"
    assert reverse("named:session-list") == "/named/sessions/"
    arguments = {"version": "v2", "tenant": "acme"}
    assert reverse("agent_sessions:health", kwargs=arguments) == "/api/v2/acme/health/"
