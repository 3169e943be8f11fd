from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, say

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"


def create(api: APIClient, **body: Any) -> dict[str, Any]:
    response = api.post(SESSIONS, {"agent_id": "a", **body}, format="json")
    assert response.status_code == 201, response.content
    result: dict[str, Any] = response.json()
    return result


def test_the_list_has_neither_messages_nor_context(api: APIClient, session: Session) -> None:
    [item] = api.get(SESSIONS).json()["results"]
    assert item["id"] == str(session.pk)
    assert item["title"] == "Debug Python script"
    assert "context" not in item
    assert "messages" not in item


def test_following_the_cursor_shows_every_session_once_in_both_directions(
    api: APIClient, owner: Any
) -> None:
    repository = SyncSessionRepository()
    made = [str(repository.create(Session(user=owner, agent_id="a")).pk) for _ in range(7)]
    pages, link = [], f"{SESSIONS}?page_size=3"
    while link:
        page = api.get(link).json()
        pages.append([item["id"] for item in page["results"]])
        # Neither a new session nor activity moves what is still to come.
        say(Session.objects.get(pk=made[0]), "hi")
        repository.create(Session(user=owner, agent_id="later"))
        last, link = page, page["next"]
    assert pages == [made[:-4:-1], made[3:0:-1], made[:1]]
    back = api.get(last["previous"]).json()
    assert [item["id"] for item in back["results"]] == pages[1]
    first = api.get(back["previous"]).json()
    assert [item["id"] for item in first["results"]] == pages[0]
    assert api.get(first["next"]).json()["results"] == back["results"]


def test_numbered_pages_give_totals_newest_activity_first(api: APIClient, owner: Any) -> None:
    made = [
        SyncSessionRepository().create(Session(user=owner, agent_id="a", title=str(number)))
        for number in range(5)
    ]
    say(made[0], "I am the most recent now")
    first = api.get(f"{SESSIONS}?page=1&page_size=2").json()
    assert [item["title"] for item in first["results"]] == ["0", "4"]
    assert (first["page"], first["page_size"]) == (1, 2)
    assert (first["total_items"], first["total_pages"]) == (5, 3)
    assert (first["has_next"], first["has_previous"]) == (True, False)
    last = api.get(first["next"].replace("page=2", "page=3")).json()
    assert len(last["results"]) == 1
    assert (last["has_next"], last["has_previous"], last["next"]) == (False, True, None)
    beyond = api.get(f"{SESSIONS}?page=99999999999999999999&page_size=2")
    assert beyond.status_code == 200
    assert beyond.json()["results"] == []


@pytest.mark.parametrize("ordering", ["created", "-created", "activity", "-activity"])
def test_cursors_lead_forwards_and_backwards_in_every_order(
    api: APIClient, owner: Any, ordering: str
) -> None:
    repository = SyncSessionRepository()
    made = [repository.create(Session(user=owner, agent_id="a")) for _ in range(7)]
    # Equal moments too.
    for number, session in enumerate(made):
        moment = timezone.now() - timedelta(hours=(number * 3) % 5)
        moment = moment.replace(minute=0, second=0, microsecond=7)
        Session.objects.filter(pk=session.pk).update(last_activity_at=moment)
    field = "created_at" if "created" in ordering else "last_activity_at"
    stored = sorted(Session.objects.all(), key=lambda each: (getattr(each, field), each.pk))
    expected = [str(each.pk) for each in stored]
    if ordering.startswith("-"):
        expected.reverse()
    numbered = api.get(f"{SESSIONS}?page=1&ordering={ordering}").json()["results"]
    assert [item["id"] for item in numbered] == expected
    seen: list[str] = []
    pages, link = [], f"{SESSIONS}?page_size=3&ordering={ordering}"
    while link:
        page = api.get(link).json()
        pages.append([item["id"] for item in page["results"]])
        seen, last, link = [*seen, *pages[-1]], page, page["next"]
    assert seen == expected
    back = api.get(last["previous"]).json()
    assert [item["id"] for item in back["results"]] == pages[1]
    first = api.get(back["previous"]).json()
    assert ([item["id"] for item in first["results"]], first["previous"]) == (pages[0], None)


@pytest.mark.postgres
@pytest.mark.parametrize("ordering", ["created", "-created", "activity", "-activity"])
def test_every_order_is_read_from_an_index(api: APIClient, owner: Any, ordering: str) -> None:
    Session.objects.bulk_create(Session(user=owner, agent_id="a") for _ in range(2_000))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agent_sessions_session")
    link = api.get(f"{SESSIONS}?page_size=10&ordering={ordering}").json()["next"]
    with CaptureQueriesContext(connection) as queries:
        api.get(link)
    [query] = [query["sql"] for query in queries if "agent_sessions_session" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Sort" not in plan, plan
    assert "Index" in plan, plan


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page_size=0",
        "page_size=101",
        "page_size=1e3",
        "cursor=x",
        "cursor=n!!",
        "cursor=",
        "ordering=title",
        "ordering=-id",
        "ordering=",
        "status=asleep",
        "active=perhaps",
        "created_after=yesterday",
        "agent_id=a%00b",
        "agent_id=" + "a" * 256,
        "text=%00",
    ],
)
def test_odd_list_parameters_are_400_and_named(api: APIClient, query: str) -> None:
    response = api.get(f"{SESSIONS}?{query}")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [error["parameter"] for error in response.json()["errors"]] == [query.split("=")[0]]


def test_filters_keep_the_sessions_they_name(api: APIClient, owner: Any) -> None:
    repository = SyncSessionRepository()

    def make(title: str, **fields: Any) -> Session:
        return repository.create(Session(user=owner, agent_id="a", title=title, **fields))

    plain = make("plain")
    repository.create(Session(user=owner, agent_id="b", title="other agent"))
    make("paused", status=SessionStatus.PAUSED)
    make("expired", expires_at=timezone.now() - timedelta(hours=1))
    old = make("old")
    long_ago = timezone.now() - timedelta(days=400)
    Session.objects.filter(pk=old.pk).update(created_at=long_ago, last_activity_at=long_ago)
    say(plain, "The café is 100% open")

    def titles(query: str) -> set[str]:
        response = api.get(f"{SESSIONS}?{query}")
        assert response.status_code == 200, response.content
        return {item["title"] for item in response.json()["results"]}

    assert titles("agent_id=b") == {"other agent"}
    assert titles(f"agent_id={'b' * 255}") == set()
    assert titles("status=paused") == {"paused"}
    assert titles("status=paused&status=completed") == {"paused"}
    assert titles("active=true") == {"plain", "other agent", "old"}
    assert titles("active=false") == {"paused", "expired"}
    assert titles("text=100%25") == {"plain"}
    assert titles("text=pau") == {"paused"}
    a_year_ago = (timezone.now() - timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert titles(f"created_before={a_year_ago}") == {"old"}
    assert "old" not in titles(f"activity_after={a_year_ago}")
    assert titles("text=plain&agent_id=b") == set()


@pytest.mark.parametrize(
    ("moment", "is_past"),
    [
        ("0001-01-01T00:00:00%2B23:59", True),
        ("9999-12-31T23:59:59-23:59", False),
        ("0001-01-01T00:00:00", True),
        ("2024-02-29T00:00:00.123456789Z", True),
    ],
)
def test_list_takes_moments_at_the_ends_of_the_calendar(
    api: APIClient, session: Session, moment: str, is_past: bool
) -> None:
    after = api.get(f"{SESSIONS}?created_after={moment}")
    before = api.get(f"{SESSIONS}?created_before={moment}")
    assert (after.status_code, before.status_code) == (200, 200)
    assert (len(after.json()["results"]), len(before.json()["results"])) == (is_past, not is_past)
