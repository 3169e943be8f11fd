"""The API shows the sessions without a tenant, or those of the tenant that the project names."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from rest_framework.test import APIClient

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, say, url

pytestmark = pytest.mark.django_db


@pytest.fixture
def foreign(owner: Any) -> Session:
    return SyncSessionRepository().for_user(owner, "acme").create(Session(agent_id="a"))


@pytest.mark.parametrize("query", ["", "?page=1", "?ordering=activity"])
def test_a_list_leaves_out_the_sessions_of_tenants(
    api: APIClient, session: Session, foreign: Session, query: str
) -> None:
    results = api.get(f"{API}sessions/{query}").json()["results"]
    assert [item["id"] for item in results] == [str(session.pk)]


@pytest.mark.parametrize("path", ["", "context", "messages", "export"])
def test_a_session_of_a_tenant_is_not_found(api: APIClient, foreign: Session, path: str) -> None:
    address = url(foreign, path) if path else url(foreign)
    assert api.get(address).status_code == 404


def test_an_export_leaves_out_the_sessions_of_tenants(
    api: APIClient, session: Session, foreign: Session
) -> None:
    lines = b"".join(api.get(f"{API}sessions/export/").streaming_content).splitlines()
    assert len(lines) == 1
    assert b"Debug Python script" in lines[0]


def test_an_erasure_without_tenants_in_the_api_erases_everything(
    api: APIClient, session: Session, foreign: Session
) -> None:
    answer = api.post(f"{API}sessions/erase/", {"confirm": True}, "json").json()
    assert (answer["sessions"], answer["tenant"]) == (2, None)


@pytest.mark.parametrize("name", ["tenant", "user", "id", "expires_at", "misspelt"])
def test_what_cannot_be_set_is_refused_for_new_sessions_and_for_changes(
    api: APIClient, session: Session, name: str
) -> None:
    for response in (
        api.post(f"{API}sessions/", {"agent_id": "a", name: "acme"}, "json"),
        api.patch(f"{API}sessions/{session.pk}/", {"title": "x", name: "acme"}, "json"),
    ):
        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [f"#/{name}"]
    assert [one.title for one in Session.objects.all()] == [session.title]


def tenant_of(request: Any) -> Any:
    """The tenant in the header, if the caller is logged in; some headers stand for mistakes."""
    assert request.user.is_authenticated
    named = request.headers.get("Tenant", "")
    if named == "forbidden":
        raise PermissionDenied
    return {"nothing": None, "number": 7}.get(named, named)


@pytest.fixture
def acme(settings: Any, api: APIClient) -> APIClient:
    """The owner's client in the tenant acme."""
    settings.AGENT_SESSIONS_API_TENANT = "tests.api.test_tenants.tenant_of"
    api.credentials(HTTP_TENANT="acme")
    return api


def test_the_api_works_in_the_tenant_of_the_request(
    acme: APIClient, owner: Any, session: Session
) -> None:
    key = {"Idempotency-Key": "k"}
    bodies = [{"agent_id": "a", "title": title} for title in ("here", "there")]
    made = acme.post(f"{API}sessions/", bodies[0], "json", headers=key).json()
    assert Session.objects.get(pk=made["id"]).tenant == "acme"
    message = {"role": "user", "content": "hello"}
    assert acme.post(url(made["id"], "messages"), message, "json").status_code == 201
    tag = {"If-Match": acme.get(url(made["id"]))["ETag"]}
    assert acme.post(url(made["id"], "messages"), message, "json", headers=tag).status_code == 201
    say(session, "hello")

    assert [item["id"] for item in acme.get(f"{API}sessions/").json()["results"]] == [made["id"]]
    found = acme.get(f"{API}sessions/search/?q=hello").json()["results"]
    assert [item["id"] for item in found] == [made["id"]]
    assert acme.get(f"{API}sessions/stats/").json()["total_messages"] == 2
    paused = {"session_ids": [made["id"]], "status": "paused"}
    assert acme.post(f"{API}sessions/bulk-status/", paused, "json").json() == {"updated": 1}

    # The key is another one in another tenant.
    acme.credentials(HTTP_TENANT="globex")
    other = acme.post(f"{API}sessions/", bodies[1], "json", headers=key)
    assert other.status_code == 201
    assert other.json()["id"] != made["id"]

    report = acme.post(f"{API}sessions/erase/", {"confirm": True}, "json").json()
    assert (report["sessions"], report["tenant"]) == (1, "globex")
    assert set(Session.objects.values_list("tenant", flat=True)) == {"", "acme"}


def test_an_event_stream_is_of_the_tenant(acme: APIClient, foreign: Session) -> None:
    say(foreign, "hello")
    response = acme.get(url(foreign, "events"))
    assert b"hello" in b"".join(response.streaming_content)


def test_a_project_refuses_a_tenant(acme: APIClient, session: Session) -> None:
    acme.credentials(HTTP_TENANT="forbidden")
    assert acme.get(f"{API}sessions/").status_code == 403
    assert acme.get(url(session)).status_code == 403
    assert acme.get(f"{API}health/").status_code == 200


@pytest.mark.parametrize("name", ["x" * 256, "\x00", "\ud800"])
def test_a_text_that_cannot_be_a_tenant_is_named(acme: APIClient, name: str) -> None:
    acme.credentials(HTTP_TENANT=name)
    response = acme.get(f"{API}sessions/")
    assert response.status_code == 400
    assert response.json()["errors"][0]["parameter"] == "tenant"


@pytest.mark.parametrize("name", ["nothing", "number"])
def test_what_is_no_text_is_an_error_of_the_project(acme: APIClient, name: str) -> None:
    acme.credentials(HTTP_TENANT=name)
    with pytest.raises(ImproperlyConfigured, match=r"AGENT_SESSIONS_API_TENANT.* no text"):
        acme.get(f"{API}sessions/")
