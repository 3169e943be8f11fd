"""How many queries a request needs, beyond those that authenticate it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from agent_sessions.models import Session
from tests.api.conftest import API, client_of, make_user, say, url

pytestmark = pytest.mark.django_db
ONE = {"role": "user", "content": "x"}
BATCH = {"messages": [ONE] * 20}
KEY = {"Idempotency-Key": "k"}

# Two that read permissions (the authentication backend's) and one that the named user is there.
STAFF = 3

# A deletion leaves the collecting to Django, so that models of the project that point to sessions
# are asked: ownership, lock, ids, messages, session. If-Match has the lock tell the ownership.
DELETE = 5

REQUESTS = [
    ("get", "", None, 1),
    ("get", "context", None, 1),
    ("get", "messages", None, 2),
    ("post", "messages", ONE, 2),
    ("post", "messages", BATCH, 2),
    ("patch", "context", {"a": 1}, 2),
    ("put", "context", {"a": 1}, 2),
    ("patch", "", {"title": "x"}, 3),
    ("delete", "", None, DELETE),
    ("get", "/sessions/", None, 1),
    ("get", "/sessions/?page=1", None, 2),
    ("get", "/sessions/?text=x&status=active", None, 1),
    ("get", "/sessions/stats/", None, 1),
    ("get", "/sessions/search/?q=x", None, 2),
    ("post", "/sessions/", {"agent_id": "a"}, 2),
]


def queries_of(
    api: APIClient, method: str, address: str, body: Any = None, **headers: str
) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        response = getattr(api, method)(address, body, format="json", headers=headers)
    assert 200 <= response.status_code < 300, response.content
    return [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]


def check(queries: list[str], budget: int) -> None:
    # On SQLite locking takes one statement more, and appending two.
    allowed = budget if connection.vendor == "postgresql" else budget + 3
    assert len(queries) <= allowed, "\n".join(queries)


def address_of(session: Session, path: str) -> str:
    if path.startswith("/"):
        return API + path.removeprefix("/")
    return url(session, path) if path else url(session)


@pytest.mark.parametrize(("method", "path", "body", "budget"), REQUESTS)
def test_ones_own(
    api: APIClient, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    say(session, *map(str, range(30)))
    check(queries_of(api, method, address_of(session, path), body), budget)


@pytest.mark.parametrize(("method", "path", "body", "budget"), REQUESTS)
def test_staff_for_another_user(
    owner: Any, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    say(session, *map(str, range(30)))
    rights = [f"{verb}_session" for verb in ("view", "add", "change", "delete")]
    make_user("staff", *rights, "view_message", "add_message", staff=True)
    staff = get_user_model().objects.get(username="staff")
    address = address_of(session, path)
    address += f"{'&' if '?' in address else '?'}user={owner.pk}"
    check(queries_of(client_of(staff), method, address, body), budget + STAFF)


@pytest.mark.parametrize(
    ("method", "path", "body", "budget"),
    [
        ("patch", "context", {"a": 1}, 2),
        ("put", "context", {"a": 1}, 2),
        ("patch", "", {"title": "x"}, 3),
        ("delete", "", None, DELETE),
    ],
)
def test_if_match(
    api: APIClient, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    seen = {"If-Match": api.get(url(session))["ETag"]}
    check(queries_of(api, method, address_of(session, path), body, **seen), budget)


@pytest.mark.parametrize("body", [ONE, BATCH])
def test_appending_with_a_key(api: APIClient, session: Session, body: Any) -> None:
    address = url(session, "messages")
    check(queries_of(api, "post", address, body, **KEY), 3)
    # A retry: the lock, the key's messages, the insertion that is refused, what is stored.
    check(queries_of(api, "post", address, body, **KEY), 4)


def test_creating_with_a_key(api: APIClient, owner: Any) -> None:
    address = f"{API}sessions/"
    check(queries_of(api, "post", address, {"agent_id": "a"}, **KEY), 2)
    check(queries_of(api, "post", address, {"agent_id": "a"}, **KEY), 3)
    assert Session.objects.count() == 1


def test_the_number_of_sessions_changes_nothing(api: APIClient, session: Session) -> None:
    body = {"session_ids": [str(session.pk)], "status": "paused"}
    few = queries_of(api, "post", f"{API}sessions/bulk-status/", body)
    check(few, 3)
    made = [api.post(f"{API}sessions/", {"agent_id": "a"}, format="json") for _ in range(20)]
    body = {"session_ids": [answer.json()["id"] for answer in made], "status": "paused"}
    assert len(queries_of(api, "post", f"{API}sessions/bulk-status/", body)) == len(few)
