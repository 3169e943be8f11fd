"""Requests that must not look like another: misspelt fields, states of another session, bodies."""

from __future__ import annotations

import gzip

import pytest
from rest_framework.test import APIClient

from agent_sessions.models import Session
from tests.api.conftest import API, url
from tests.api.test_requests import problem

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"
JSON = "application/json"


def test_a_misspelt_change_is_400_and_named(api: APIClient, session: Session) -> None:
    answer = api.patch(url(session), {"titel": "x", "title": "y"}, format="json")
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/titel"]
    session.refresh_from_db()
    assert session.title == "Debug Python script"


def test_messages_are_added_to_the_state_that_if_match_names_only(
    api: APIClient, session: Session
) -> None:
    message = {"role": "user", "content": "Hello"}
    etag = api.get(url(session))["ETag"]
    path = url(session, "messages")
    assert api.post(path, message, format="json", headers={"If-Match": etag}).status_code == 201
    assert api.post(path, message, format="json", headers={"If-Match": etag}).status_code == 412
    assert len(api.get(path).json()["results"]) == 1


def test_if_match_on_many_sessions_is_refused(api: APIClient, session: Session) -> None:
    body = {"session_ids": [str(session.pk)], "status": "completed"}
    path = f"{API}sessions/bulk-status/"
    assert api.post(path, body, format="json", headers={"If-Match": '"x"'}).status_code == 400
    session.refresh_from_db()
    assert session.status == "active"


def test_a_compressed_body_is_415(api: APIClient, session: Session) -> None:
    body = gzip.compress(b'{"role": "user", "content": "x"}')
    for encoding in ("gzip", "br", "identity, gzip"):
        response = api.post(
            url(session, "messages"),
            body,
            content_type=JSON,
            headers={"Content-Encoding": encoding},
        )
        assert response.status_code == 415
        assert problem(response)["code"] == "unsupported_content_encoding"
    plain = {"Content-Encoding": "identity"}
    assert api.post(SESSIONS, {"agent_id": "a"}, "json", headers=plain).status_code == 201


def test_a_body_in_chunks_is_411(api: APIClient, session: Session) -> None:
    for encoding in ("chunked", "gzip, Chunked"):
        response = api.post(
            SESSIONS, {"agent_id": "a"}, "json", headers={"Transfer-Encoding": encoding}
        )
        assert response.status_code == 411
        assert problem(response)["code"] == "length_required"
    assert list(Session.objects.all()) == [session]
