"""What is sent and what is held open is bounded in bytes and in number."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client as DjangoClient
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from agent_sessions.api import messages
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, client_of, make_user, say, url

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("query", ["", "?page=1", "?text=debug", "search/?q=debug"])
def test_a_list_does_not_load_the_contexts_that_it_does_not_show(
    api: APIClient, owner: Any, query: str
) -> None:
    SyncSessionRepository().create(
        Session(user=owner, agent_id="a", title="Debug it", context={"a": "large"})
    )
    with CaptureQueriesContext(connection) as queries:
        found = api.get(f"{API}sessions/{query}").json()["results"]
    assert [each["title"] for each in found] == ["Debug it"]
    assert not [each for each in queries.captured_queries if '"context"' in each["sql"]]


def test_a_window_of_large_messages_is_cut_and_its_links_lead_to_all(
    api: APIClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LARGEST_ANSWER", 10_000)
    say(session, *(str(number) * 4_000 for number in range(1, 8)), "last")
    seen: list[int] = []
    link = f"{url(session, 'messages')}?after=0&limit=100"
    while link:
        page = api.get(link)
        assert len(page.content) < 13_000
        seen += [message["sequence"] for message in page.json()["results"]]
        link = page.json()["next"]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    backwards = api.get(f"{url(session, 'messages')}?limit=100").json()
    assert [message["sequence"] for message in backwards["results"]] == [6, 7, 8]
    assert "before=6" in backwards["previous"]


def test_one_message_larger_than_an_answer_is_sent_alone(
    api: APIClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LARGEST_ANSWER", 10)
    say(session, "a" * 100, "b" * 100)
    page = api.get(f"{url(session, 'messages')}?after=0").json()
    assert [message["sequence"] for message in page["results"]] == [1]


@pytest.mark.parametrize("field", ["context", "metadata"])
def test_context_and_metadata_have_a_largest_size(
    api: APIClient, session: Session, field: str, settings: Any
) -> None:
    large = {"a": "x" * (256 * 1024)}
    created = api.post(f"{API}sessions/", {"agent_id": "a", field: large}, format="json")
    assert created.status_code == 400
    assert created.json()["errors"][0]["pointer"].startswith(f"#/{field}")


def test_a_context_cannot_grow_beyond_its_size_by_many_small_changes(
    api: APIClient, session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_MAX_OBJECT_BYTES = 1_000
    codes = [
        api.patch(url(session, "context"), {f"key{number}": "x" * 300}, format="json").status_code
        for number in range(4)
    ]
    assert codes == [200, 200, 200, 400]
    session.refresh_from_db()
    assert sorted(session.context) == ["key0", "key1", "key2"]
    assert api.put(url(session, "context"), {"a": 1}, format="json").status_code == 200


@pytest.mark.parametrize(
    ("setting", "path"), [("STREAMS_PER_USER", "events"), ("EXPORTS_PER_USER", "export")]
)
def test_a_user_holds_a_limited_number_of_streams_open(
    api: APIClient, owner: Any, session: Session, settings: Any, setting: str, path: str
) -> None:
    setattr(settings, f"AGENT_SESSIONS_MAX_{setting}", 2)
    held = [api.get(url(session, path)) for _ in range(3)]
    assert [response.status_code for response in held] == [200, 200, 429]
    assert int(held[2]["Retry-After"]) > 0
    other = make_user("other")
    theirs = SyncSessionRepository().create(Session(user=other, agent_id="a"))
    assert client_of(other).get(url(theirs, path)).status_code == 200
    assert b"".join(held[0])
    assert api.get(url(session, path)).status_code == 200
    assert api.get(url(session, path)).status_code == 429


def test_the_streams_of_a_process_are_limited(
    api: APIClient, session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_MAX_STREAMS = 1
    held = api.get(url(session, "events"))
    assert api.get(url(session, "export")).status_code == 429
    assert b"".join(held)
    assert api.get(url(session, "export")).status_code == 200


def test_gzip_middleware_leaves_the_event_stream_alone(session: Session, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
    client = DjangoClient()
    client.force_login(session.user)
    say(session, "Hello")
    response = client.get(url(session, "events"), headers={"Accept-Encoding": "gzip"})
    assert response["Content-Encoding"] == "identity"
    assert b"data: " in b"".join(response)
