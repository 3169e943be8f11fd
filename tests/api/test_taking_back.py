"""Messages that are changed and taken back over the API, and what clients hear of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from agent_sessions.api import messages
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import client_of, make_user, say, url

pytestmark = pytest.mark.django_db

ONE = {"role": "user", "content": "new"}


@pytest.fixture
def filled(session: Session) -> Session:
    say(session, "one", "two", "three")
    return session


def texts(session: Session) -> list[str]:
    return [m.content for m in SyncSessionRepository().get_messages(session.pk)]


def events_of(api: APIClient, session: Session, after: int) -> list[tuple[int, str, Any]]:
    response = api.get(url(session, "events"), headers={"Last-Event-ID": str(after)})
    sent = b"".join(response.streaming_content).decode().split("\n\n")[1:-1]  # type: ignore[attr-defined]
    found = []
    for event in sent:
        number, name, data = (line.partition(": ")[2] for line in event.split("\n"))
        found.append((int(number), name, json.loads(data)))
    return found


def test_one_message_is_read_changed_and_deleted(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages/2")
    before = api.get(address).json()
    assert (before["sequence"], before["message"]["content"]) == (2, "two")
    changed = api.put(address, ONE, format="json")
    assert changed.json() == {**before, "message": ONE}
    assert api.get(address).json() == changed.json()
    assert api.delete(address).status_code == 204
    assert api.delete(address).status_code == api.get(address).status_code == 404
    assert api.put(address, ONE, format="json").status_code == 404
    assert texts(filled) == ["one", "three"]


def test_a_message_in_another_state_is_not_changed(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages/2")
    tag = api.get(address)["ETag"]
    assert api.get(address, headers={"If-None-Match": tag}).status_code == 304
    seen = {"If-Match": tag}
    changed = api.put(address, ONE, format="json", headers=seen)
    assert changed["ETag"] == api.get(address)["ETag"] != tag
    assert api.put(address, ONE, format="json", headers=seen).status_code == 412
    assert api.delete(address, headers=seen).status_code == 412
    assert texts(filled) == ["one", "new", "three"]
    assert api.delete(address, headers={"If-Match": changed["ETag"]}).status_code == 204


def test_the_state_of_a_message_is_checked_where_its_session_cannot_be_decrypted(
    api: APIClient, filled: Session
) -> None:
    address = url(filled, "messages/2")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE agent_sessions_session SET sealed_title = 'enc:x'")
    seen = {"If-Match": api.get(address)["ETag"]}
    changed = api.put(address, ONE, format="json", headers=seen)
    assert changed.status_code == 200
    assert api.delete(address, headers=seen).status_code == 412
    assert api.delete(address, headers={"If-Match": changed["ETag"]}).status_code == 204


def test_errors_of_a_change_point_into_the_message(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages/2")
    for body, pointer in (
        ({"role": "nobody", "content": "x"}, "#/role"),
        ({"role": "user", "content": 7}, "#/content"),
        ({**ONE, "idempotency_key": "k"}, "#/idempotency_key"),
        ([], "#"),
    ):
        refused = api.put(address, body, format="json")
        assert refused.status_code == 400
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    for sequence in ("0", "4", "9999999999"):
        assert api.get(url(filled, f"messages/{sequence}")).status_code == 404


def test_the_last_message_is_taken_back(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages/pop")
    assert api.post(address).json()["message"]["content"] == "three"
    tag = api.get(url(filled))["ETag"]
    assert api.post(address, headers={"If-Match": tag}).json()["sequence"] == 2
    # The repeated request finds another state.
    assert api.post(address, headers={"If-Match": tag}).status_code == 412
    assert api.post(address).status_code == 200
    empty = api.post(address)
    assert (empty.status_code, empty.content) == (204, b"")


def test_the_tail_is_replaced_once(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages/tail")
    body = {"after": 1, "messages": [ONE, ONE], "expected_last": 3}
    added = api.put(address, body, format="json").json()["results"]
    assert [each["message"] for each in added] == [ONE, ONE]
    again = api.put(address, body, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "session_changed")
    assert texts(filled) == ["one", "new", "new"]
    assert api.put(address, {"after": 0, "messages": []}, format="json").json() == {"results": []}
    assert texts(filled) == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"messages": []}, "#/after"),
        ({"after": -1, "messages": []}, "#/after"),
        ({"after": 0, "messages": [{"role": "user"}]}, "#/messages/0/content"),
        ({"after": 0, "messages": [7]}, "#/messages/0"),
        ({"after": 0, "messages": [], "expected": 3}, "#/expected"),
    ],
)
def test_a_wrong_tail_changes_nothing(
    api: APIClient, filled: Session, body: Any, pointer: str
) -> None:
    refused = api.put(url(filled, "messages/tail"), body, format="json")
    assert refused.status_code == 400
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert texts(filled) == ["one", "two", "three"]


def test_all_messages_are_deleted(api: APIClient, filled: Session) -> None:
    address = url(filled, "messages")
    assert api.delete(address, headers={"If-Match": '"older"'}).status_code == 412
    assert api.delete(address).json() == {"deleted": 3}
    assert api.delete(address).json() == {"deleted": 0}
    assert api.get(url(filled)).json()["message_count"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("put", "messages/1", ONE),
        ("delete", "messages/1", None),
        ("delete", "messages", None),
        ("post", "messages/pop", None),
        ("put", "messages/tail", {"after": 0, "messages": []}),
    ],
)
def test_an_archived_session_is_read_only(
    api: APIClient, filled: Session, method: str, path: str, body: Any
) -> None:
    SyncSessionRepository().update_session(filled.pk, {"status": "archived"})
    refused = getattr(api, method)(url(filled, path), body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "session_archived")
    assert texts(filled) == ["one", "two", "three"]


def test_changes_and_events_tell_the_same(api: APIClient, filled: Session) -> None:
    api.put(url(filled, "messages/1"), ONE, format="json")
    api.delete(url(filled, "messages/2"))
    say(filled, "four")
    page = api.get(url(filled, "changes"), {"after": 3}).json()
    first, second, third = page["results"]
    assert (first["number"], first["type"], first["message"]["message"]) == (
        4,
        "message.updated",
        ONE,
    )
    assert second == {"number": 5, "type": "message.deleted", "sequence": 2, "message": None}
    assert (third["number"], third["type"], third["sequence"]) == (6, "message", 6)
    assert page["last"] == 6
    assert api.get(url(filled, "changes"), {"after": 6}).json() == {"last": 6, "results": []}
    assert events_of(api, filled, 3) == [
        (4, "message.updated", first["message"]),
        (5, "message.deleted", {"sequence": 2}),
        (6, "message", third["message"]),
    ]
    limited = api.get(url(filled, "changes"), {"limit": 1}).json()
    assert (limited["last"], len(limited["results"])) == (1, 1)
    # Who begins now sees what there is.
    assert [number for number, _, _ in events_of(api, filled, 0)] == [1, 3, 6]


def test_answers_of_changes_are_bounded(
    api: APIClient, filled: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LARGEST_ANSWER", 20)
    api.put(url(filled, "messages/1"), ONE, format="json")
    after, seen = 0, []
    while found := api.get(url(filled, "changes"), {"after": after}).json():
        if not found["results"]:
            break
        assert len(found["results"]) <= 2
        after = found["last"]
        seen += [change["number"] for change in found["results"]]
    assert seen == [1, 2, 3, 4]


def test_staff_need_the_rights_to_what_they_do(owner: Any, filled: Session) -> None:
    deleting = client_of(make_user("deleting", "delete_message", staff=True))
    both = client_of(make_user("both", "delete_message", "view_message", staff=True))
    changing = client_of(make_user("changing", "change_message", staff=True))
    pop = f"{url(filled, 'messages/pop')}?user={owner.pk}"
    tail = f"{url(filled, 'messages/tail')}?user={owner.pk}"
    # Who takes a message back sees it.
    assert deleting.post(pop).status_code == 403
    assert both.post(pop).status_code == 200
    body = {"after": 2, "messages": [ONE]}
    assert both.put(tail, body, format="json").status_code == 403
    assert changing.put(tail, body, format="json").status_code == 200
    keyed = {"after": 2, "messages": [{**ONE, "idempotency_key": "k"}]}
    assert changing.put(tail, keyed, format="json").status_code == 400
    assert not Message.objects.filter(idempotency_key="k").exists()
