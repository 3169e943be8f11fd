"""How many queries a request needs, beyond those that authenticate it: never more than three.

A deletion of a session needs two more, for what deleted messages left and for texts in the admin's
log; messages that are changed or deleted need up to two more, and a list of changes one.

Staff who act for another user need some more: their permissions are read, and that there is
such a user. An export, an erasure, the cleanup and a status for many go on in batches.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from agent_sessions.models import DeletedMessage, Message, Session
from tests.api.conftest import API, client_of, make_user, say, url
from tests.api.test_isolation import OPERATIONS, ask

pytestmark = pytest.mark.django_db
ONE = {"role": "user", "content": "x"}
BATCH = {"messages": [ONE] * 20}
KEY = {"Idempotency-Key": "k"}

# Two that read permissions (the authentication backend's) and one that the named user is there.
STAFF = 3
VERBS = ("view", "add", "change", "delete")
# One statement on PostgreSQL; elsewhere a deletion of a message that is read before.
POP = 1 if connection.vendor == "postgresql" else 4

REQUESTS = [
    ("get", "", None, 1),
    ("get", "context", None, 1),
    # The sizes of the messages, then those that fit.
    ("get", "messages", None, 2),
    ("post", "messages", ONE, 1),
    ("post", "messages", BATCH, 1),
    ("patch", "context", {"a": 1}, 1),
    ("put", "context", {"a": 1}, 1),
    ("patch", "", {"title": "x"}, 2),
    # The lock, the messages and what deleted ones left, the log, the session.
    ("delete", "", None, 5),
    ("get", "messages/3", None, 1),
    ("post", "messages/pop", None, POP),
    # The lock, the message, the row of it, the session.
    ("put", "messages/3", ONE, 4),
    # The lock, the numbers, the messages, what they leave, the session.
    ("delete", "messages/3", None, 5),
    ("delete", "messages", None, 5),
    ("put", "messages/tail", {"after": 28, "messages": [ONE]}, 6),
    # The sizes of messages and of changed ones, the session, the messages.
    ("get", "changes", None, 4),
    ("get", "/sessions/", None, 1),
    ("get", "/sessions/?page=1", None, 2),
    ("get", "/sessions/?text=x&status=active", None, 1),
    ("get", "/sessions/stats/", None, 1),
    ("get", "/sessions/search/?q=x", None, 2),
    ("post", "/sessions/", {"agent_id": "a"}, 2),
]


MORE = {
    "deleteSession": 5,
    "eraseSessions": 5,
    "replaceMessage": 4,
    "popMessage": POP,
    "deleteMessage": 5,
    "clearMessages": 5,
    "replaceMessagesTail": 5,
    "listMessageChanges": 4,
    # Two for each window, of which there are two here.
    "followMessages": 5,
}


def queries_of(
    api: APIClient, method: str, address: str, body: Any = None, **headers: str
) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        response = getattr(api, method)(address, body, format="json", headers=headers)
    assert 200 <= response.status_code < 300, response.content
    return [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]


@pytest.fixture(autouse=True)
def known_content_types(db: None) -> None:
    """A process reads each content type once."""
    ContentType.objects.get_for_models(Session, Message, DeletedMessage, for_concrete_models=False)


def check(queries: list[str], budget: int) -> None:
    # On SQLite locking takes one statement more, and appending two.
    allowed = budget if connection.vendor == "postgresql" else budget + 3
    assert len(queries) <= allowed, "\n".join(queries)


def address_of(session: Session, path: str) -> str:
    if path.startswith("/"):
        return API + path.removeprefix("/")
    return url(session, path) if path else url(session)


@pytest.mark.parametrize(("method", "path", "body", "budget"), REQUESTS)
def test_each_route_keeps_its_budget_of_queries(
    api: APIClient, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    say(session, *map(str, range(30)))
    check(queries_of(api, method, address_of(session, path), body), budget)


@pytest.mark.parametrize(("method", "path", "body", "budget"), REQUESTS)
def test_staff_for_another_user(
    owner: Any, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    say(session, *map(str, range(30)))
    rights = [f"{verb}_{of}" for of in ("session", "message") for verb in VERBS]
    make_user("staff", *rights, staff=True)
    staff = get_user_model().objects.get(username="staff")
    address = address_of(session, path)
    address += f"{'&' if '?' in address else '?'}user={owner.pk}"
    check(queries_of(client_of(staff), method, address, body), budget + STAFF)


@pytest.mark.parametrize(
    ("method", "path", "body", "budget"),
    [
        ("patch", "context", {"a": 1}, 2),
        ("put", "context", {"a": 1}, 2),
        ("patch", "", {"title": "x"}, 2),
        ("delete", "", None, 5),
    ],
)
def test_a_condition_keeps_the_budget_of_queries(
    api: APIClient, session: Session, method: str, path: str, body: Any, budget: int
) -> None:
    seen = {"If-Match": api.get(url(session))["ETag"]}
    check(queries_of(api, method, address_of(session, path), body, **seen), budget)


@pytest.mark.parametrize("body", [ONE, BATCH])
def test_appending_with_a_key(api: APIClient, session: Session, body: Any) -> None:
    address = url(session, "messages")
    # One of them is the lock that is needed inside a transaction, as here in the test.
    check(queries_of(api, "post", address, body, **KEY), 2)
    # A retry: the insertion that adds nothing, what is stored.
    check(queries_of(api, "post", address, body, **KEY), 3)


@pytest.mark.parametrize(("method", "path", "name"), OPERATIONS)
def test_no_route_needs_more_than_three(
    session: Session, method: str, path: str, name: str
) -> None:
    say(session, *map(str, range(30)))
    # A superuser's rights need no query; the session is its own.
    root = make_user("root", staff=True)
    root.is_superuser = True
    Session.objects.update(user=root)
    with CaptureQueriesContext(connection) as queries:
        response = ask(client_of(root), method, path, name, session)
        if response.streaming:
            b"".join(response)
    assert 200 <= response.status_code < 300, response.content
    most = MORE.get(name, 3)
    check([query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]], most)


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
