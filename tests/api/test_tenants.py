"""The API shows the sessions without a tenant: a tenant's exist in no answer."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, url

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
